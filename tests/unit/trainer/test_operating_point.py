"""The operating point: chosen on validation through the serving functions, never where the images do not support it.

The engine is "dark is defect": the level of a pixel is 255 minus its brightest channel.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

import cv2
import numpy as np
import pytest

from defectoscope.errors.api import InvalidRequest
from defectoscope.errors.models import InvalidModel
from defectoscope.errors.training import TrainingInterrupted
from defectoscope.segmentation import ModelContract, SegmentationParams, count_pixels, from_model_output
from defectoscope.segmentation.masks import encode_class_mask
from tests.images import draw_part, encode
from tests.models import write_dark_is_defect
from trainer.data import LabelledFile
from trainer.evaluate import evaluate
from trainer.operating_point import CANDIDATE_LEVELS, CANDIDATE_MIN_AREAS_PX, Costs, choose_operating_point
from trainer.runtime import onnx_engine
from trainer.threshold_sweep import sweep

CONTRACT = ModelContract(
    input_size_wh=(32, 32),
    resize_policy="stretch",
    threshold=0.5,
    min_area_px=0,
    class_names=("background", "defect"),
    architecture="darkness",
    encoder="none",
    dataset_revision=None,
    version=None,
)


@dataclass(frozen=True)
class Bytes:
    """A file in memory."""

    content: bytes

    def read(self):
        return self.content


def _dark_is_defect(images):
    return 255 - images.max(axis=3)


def _file(levels, class_mask, *, name="part", group=""):
    """Make an image that the engine gives these levels, (H, W)."""
    pixels = np.repeat(255 - np.asarray(levels, dtype=np.uint8)[:, :, np.newaxis], 3, axis=2)
    return LabelledFile(
        name=name,
        image=Bytes(encode(pixels, "PNG")),
        label=Bytes(encode_class_mask(np.asarray(class_mask, dtype=np.uint8))),
        group=group,
    )


def _part(*, defect=None, specks=(), background=0, name="part", group=""):
    """A 32 x 32 part: a labelled square of one level, and single pixels of a level that no label shows."""
    levels = np.full((32, 32), background)
    class_mask = np.zeros((32, 32))
    for number, level in enumerate(specks):
        levels[28, 2 + 4 * number] = level
    if defect is not None:
        levels[4:14, 4:14] = defect
        class_mask[4:14, 4:14] = 1
    return _file(levels, class_mask, name=name, group=group)


def _square_call(level):
    """A clean part with a square that looks like a defect."""
    levels = np.zeros((32, 32))
    levels[4:14, 4:14] = level
    return _file(levels, np.zeros((32, 32)))


def _choose(files, *, contract=CONTRACT, engine=_dark_is_defect, **kwargs):
    return choose_operating_point(files, engine=engine, contract=contract, **kwargs)


def _level(point):
    return round(point.threshold * 255)


def test_the_threshold_moves_to_where_the_defects_are():
    files = [_part(defect=60, background=20), _part(defect=70, background=10), _part(background=30)]

    point = _choose(files)

    # Of the thresholds above the background and up to the faintest defect, the one nearest the recipe's.
    assert point.tuned
    assert _level(point) == 58
    assert point.chosen.mean_iou == pytest.approx(1.0)
    assert point.recipe.mean_iou == pytest.approx(1 / 3)
    assert (point.escape_rate.mean, point.false_call_rate.mean) == (0.0, 0.0)
    assert (point.recipe.escape_rate, point.recipe.false_call_rate) == (1.0, 0.0)
    assert point.note == "Chosen for the largest mean IoU on 3 validation images."


def test_the_minimum_area_drops_what_no_label_shows_and_no_more():
    files = [_part(defect=200), _part(specks=[255, 255]), _part(specks=[255])]

    point = _choose(files)

    # 16 and 64 would do as well; 4 is nearest the recipe's 0, and 256 would drop the defect of 100 pixels.
    assert (point.threshold, point.min_area_px) == (CONTRACT.threshold, 4)
    assert point.chosen.mean_iou == pytest.approx(1.0)
    assert point.recipe.false_call_rate == 1.0
    assert point.chosen.false_call_rate == 0.0


@pytest.mark.parametrize("threshold", [0.5, 0.37, 108 / 255, 0.999])
def test_of_equal_candidates_the_recipes_own_stays_to_the_last_digit(threshold):
    files = [_part(defect=255), _part()]

    point = _choose(files, contract=replace(CONTRACT, threshold=threshold, min_area_px=7))

    assert point.tuned
    assert (point.threshold, point.min_area_px) == (threshold, 7)
    assert point.chosen == point.recipe


def test_costs_decide_between_an_escape_and_a_false_call():
    # The faint defect cannot be had without the false call.
    files = [_part(defect=60), _part(defect=200), _square_call(100), _part()]

    dear_escapes = _choose(files, costs=Costs(escape=10, false_call=1))
    dear_false_calls = _choose(files, costs=Costs(escape=1, false_call=10))

    assert (dear_escapes.chosen.escape_rate, dear_escapes.chosen.false_call_rate) == (0.0, 0.5)
    assert (dear_false_calls.chosen.escape_rate, dear_false_calls.chosen.false_call_rate) == (0.5, 0.0)
    assert dear_escapes.objective == "cost"
    # Half of the images are defective: 1/2 * 1/2 * 1 in both cases.
    assert dear_escapes.chosen.expected_cost == pytest.approx(0.25)
    assert dear_false_calls.chosen.expected_cost == pytest.approx(0.25)
    assert dear_escapes.note == "Chosen for the least expected cost of an image on 4 validation images."


def test_the_share_of_defects_in_production_turns_the_same_costs_round():
    files = [_part(defect=60), _part(defect=200), _square_call(100), _part()]

    as_validated = _choose(files, costs=Costs(escape=3, false_call=1))
    on_the_line = _choose(files, costs=Costs(escape=3, false_call=1, defect_share=0.01))

    assert as_validated.chosen.escape_rate == 0.0
    assert on_the_line.chosen.escape_rate == 0.5
    assert on_the_line.chosen.expected_cost == pytest.approx(0.01 * 0.5 * 3)


def test_validation_without_defects_is_never_tuned_on():
    files = [_part(background=200), _part(specks=[255])]

    point = _choose(files)

    assert not point.tuned
    assert (point.threshold, point.min_area_px) == (CONTRACT.threshold, CONTRACT.min_area_px)
    assert point.escape_rate is None
    assert point.false_call_rate.mean == 1.0
    assert point.note == (
        "No validation image shows a defect, so that the recipe's threshold and minimum area stay and the rate of "
        "escapes is unknown."
    )


def test_without_clean_images_the_rate_of_false_calls_is_said_to_be_unknown():
    point = _choose([_part(defect=60), _part(defect=70)])

    assert point.tuned
    assert _level(point) == 58
    assert point.false_call_rate is None
    assert point.note == "Chosen by IoU on images that all show a defect; the rate of false calls is unknown."


@pytest.mark.parametrize(
    ("files", "message"),
    [
        pytest.param([_part(defect=60)], "No validation image is clean", id="no clean image"),
        pytest.param([_part()], "No validation image shows a defect", id="no defect"),
    ],
)
def test_costs_are_not_weighed_where_one_of_the_two_errors_cannot_be_seen(files, message):
    point = _choose(files, costs=Costs(escape=1, false_call=1))

    assert not point.tuned
    assert (point.threshold, point.min_area_px) == (CONTRACT.threshold, CONTRACT.min_area_px)
    assert point.chosen.expected_cost is None
    assert point.note.startswith(message)


def test_without_images_the_recipe_stays():
    point = _choose([])

    assert not point.tuned
    assert (point.threshold, point.min_area_px, point.images) == (CONTRACT.threshold, CONTRACT.min_area_px, 0)
    assert point.chosen is None
    assert point.curve == ()
    assert point.note == "There are no validation images, so that the recipe's threshold and minimum area stay."


def test_claims_in_ignored_pixels_are_no_false_calls():
    levels = np.zeros((32, 32))
    levels[26:30, 26:30] = 255
    ignoring = np.zeros((32, 32))
    ignoring[24:, 24:] = 255
    all_ignored = np.full((32, 32), 255)

    point = _choose([_part(defect=255), _file(levels, ignoring), _file(levels, all_ignored)])

    assert (point.images, point.defective_images, point.clean_images) == (3, 1, 1)
    assert point.false_call_rate.mean == 0.0


def test_images_of_one_group_widen_the_interval_of_a_rate():
    def files(parts_per_group):
        return [_part(defect=255)] + [
            _part(specks=[255] if number < 20 else [], name=f"part {number}", group=str(number // parts_per_group))
            for number in range(40)
        ]

    contract = replace(CONTRACT, min_area_px=1)
    rates = [
        _choose(files(parts), contract=contract, costs=Costs(escape=1, false_call=0)).false_call_rate
        for parts in (1, 8)
    ]

    assert [rate.images for rate in rates] == [40, 40]
    assert [rate.groups for rate in rates] == [40, 5]
    assert rates[1].high - rates[1].low > 1.5 * (rates[0].high - rates[0].low)


def test_no_escape_among_few_images_is_not_reported_as_certainty():
    point = _choose([_part(defect=255, name=f"part {number}") for number in range(10)] + [_part()])

    assert (point.escape_rate.mean, point.escape_rate.low) == (0.0, 0.0)
    assert 0.1 < point.escape_rate.high < 0.4


def _smooth(rng, shape_hw):
    noise = cv2.GaussianBlur(rng.normal(size=shape_hw), (0, 0), 1.5)
    return np.clip(128 + 500 * noise, 0, 255).astype(np.uint8)


def test_every_candidate_is_scored_as_the_serving_functions_would():
    rng = np.random.default_rng(7)
    contract = replace(CONTRACT, input_size_wh=(24, 20))
    masks = [(_smooth(rng, shape_hw) > 150).astype(np.uint8) for shape_hw in ((20, 24), (40, 30), (13, 50), (9, 9))]
    masks[1][5:20, 3:15] = 255
    outputs = np.stack([_smooth(rng, (20, 24)) for _ in masks])
    thresholds, areas_px = [0.1, 0.3, 0.5, 0.501, 0.7, 0.9, 1.0], [0, 1, 3, 9, 30, 5_000]

    swept = sweep(
        [_file(np.zeros(mask.shape), mask) for mask in masks],
        engine=lambda _: outputs,
        contract=contract,
        thresholds=thresholds,
        min_areas_px=areas_px,
    )

    expected = np.array(
        [
            [
                [
                    count_pixels(
                        from_model_output(
                            output,
                            shape_hw=mask.shape,
                            params=SegmentationParams(threshold=threshold, min_area_px=area_px),
                        ).mask,
                        mask,
                    )
                    for area_px in areas_px
                ]
                for threshold in thresholds
            ]
            for output, mask in zip(outputs, masks, strict=True)
        ],
        dtype=object,
    )
    scores = np.vectorize(lambda counts: counts.iou_defect)(expected)
    assert len(np.unique(scores)) > 30
    np.testing.assert_allclose(swept.iou, scores, atol=1e-6)
    np.testing.assert_array_equal(swept.is_called, np.vectorize(lambda counts: counts.tp + counts.fp > 0)(expected))


@pytest.mark.parametrize("policy", ["stretch", "letterbox", "tile"])
def test_what_is_chosen_is_what_a_served_file_then_does(tmp_path, policy):
    contract = replace(CONTRACT, input_size_wh=(64, 64), threshold=0.9, min_area_px=0, resize_policy=policy)
    engine = onnx_engine(write_dark_is_defect(tmp_path / "dark.onnx", contract))
    files = [
        LabelledFile(
            name=f"part {seed}",
            image=Bytes(encode(pixels, "PNG")),
            label=Bytes(encode(class_mask * 255, "PNG")),
        )
        for seed, (pixels, class_mask) in enumerate(
            draw_part(height=48 + 8 * seed, width=100 - 9 * seed, seed=seed, with_defect=seed % 2 == 0)
            for seed in range(6)
        )
    ]

    point = choose_operating_point(files, engine=engine, contract=contract, batch_size=4)

    served = evaluate(files, engine=engine, contract=point.apply(contract))
    assert point.tuned
    assert point.threshold < contract.threshold
    assert point.chosen.mean_iou == pytest.approx(np.mean([score.counts.iou_defect for score in served]), abs=1e-6)
    assert point.chosen.mean_iou > 0.8 > point.recipe.mean_iou
    assert point.escape_rate.mean == np.mean([score.counts.tp + score.counts.fp == 0 for score in served[::2]])
    assert point.false_call_rate.mean == np.mean([score.counts.fp > 0 for score in served[1::2]])


def test_a_point_is_json_ready_with_its_curve():
    point = _choose([_part(defect=60), _part()], costs=Costs(escape=5, false_call=1))

    told = json.loads(json.dumps(point.to_json(), allow_nan=False))

    assert told["threshold"] == point.threshold
    assert told["costs"] == {"escape": 5, "false_call": 1, "defect_share": None}
    assert [round(at["threshold"] * 255) for at in told["curve"]] == list(CANDIDATE_LEVELS)
    assert {at["min_area_px"] for at in told["curve"]} == {point.min_area_px}
    escapes = [at["escape_rate"] for at in told["curve"]]
    assert escapes == sorted(escapes)
    assert set(told["curve"][0]) == {
        "threshold",
        "min_area_px",
        "mean_iou",
        "escape_rate",
        "false_call_rate",
        "expected_cost",
    }
    assert told["chosen"] in told["curve"]


def test_every_image_goes_through_the_engine_once():
    seen = []

    def engine(images):
        seen.append(len(images))
        return _dark_is_defect(images)

    _choose([_part(defect=60)] * 5, engine=engine, batch_size=2)

    assert seen == [2, 2, 1]


def test_a_stop_is_heard_between_batches():
    asked = []

    def check():
        asked.append(None)
        if len(asked) == 2:
            raise TrainingInterrupted

    with pytest.raises(TrainingInterrupted):
        _choose([_part(defect=60)] * 6, batch_size=2, check=check)
    assert len(asked) == 2


def test_an_engine_that_breaks_the_contract_is_refused():
    with pytest.raises(InvalidModel, match="where the contract demands"):
        _choose([_part(defect=60)], engine=lambda images: images[:, :16, :16, 0])


@pytest.mark.parametrize(
    "values",
    [
        pytest.param({"escape": -1, "false_call": 1}, id="a negative cost"),
        pytest.param({"escape": 0, "false_call": 0}, id="nothing costs anything"),
        pytest.param({"escape": float("nan"), "false_call": 1}, id="not a number"),
        pytest.param({"escape": 1, "false_call": 1, "defect_share": 0.0}, id="no defects ever"),
        pytest.param({"escape": 1, "false_call": 1, "defect_share": 1.0}, id="defects only"),
    ],
)
def test_costs_that_mean_nothing_are_refused(values):
    with pytest.raises(InvalidRequest):
        Costs(**values)


def test_the_candidates_are_few_and_hold_the_recipes_own():
    point = _choose([_part(defect=60), _part()], contract=replace(CONTRACT, threshold=0.5, min_area_px=10))

    assert len(point.curve) == len(CANDIDATE_LEVELS) <= 26
    assert CONTRACT.threshold in [at.threshold for at in point.curve]
    assert len(CANDIDATE_MIN_AREAS_PX) <= 6
