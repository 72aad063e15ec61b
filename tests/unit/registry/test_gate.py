"""The rules of promotion one by one, on scores small enough to check by hand."""

from __future__ import annotations

import json

import pytest

from defectoscope.errors.api import InvalidRequest
from defectoscope.errors.models import ScoresNotComparable
from defectoscope.registry.gate import GateImage, judge
from defectoscope.registry.gate_rules import GateRules, size_band
from defectoscope.segmentation import PixelCounts

IMAGE_PX = 1_000_000
SMALL_PX, MEDIUM_PX, LARGE_PX = 1_000, 10_000, 100_000
QUICK = GateRules(resamples=500)
PLAIN = GateRules(resamples=500, unseen_loss=0)


def _counts(iou, label_px=MEDIUM_PX):
    """Give counts of an image with this IoU: part of the defect is found, or a clean image gets a false call."""
    if label_px == 0:
        fp = 0 if iou == 1.0 else 500
        return PixelCounts(0, fp, 0, IMAGE_PX - fp)
    tp = round(iou * label_px)
    return PixelCounts(tp, 0, label_px - tp, IMAGE_PX - label_px)


def _version(ious, label_px=MEDIUM_PX):
    sizes = label_px if isinstance(label_px, list) else [label_px] * len(ious)
    return {row: _counts(iou, size) for row, (iou, size) in enumerate(zip(ious, sizes, strict=True))}


def _images(count, **kwargs):
    return [GateImage(image_id=row, group=f"part {row}", **kwargs) for row in range(count)]


def _check(decision, name):
    return {check.name: check for check in decision.checks}[name]


def _judge(challenger, champion, *, best_ever=None, images=None, rules=QUICK):
    return judge(
        images or _images(len(challenger)), challenger=challenger, champion=champion, best_ever=best_ever, rules=rules
    )


def test_a_clearly_better_challenger_is_promoted_and_becomes_the_best():
    decision = _judge(_version([0.85] * 100), _version([0.7] * 100))

    assert decision.promoted
    assert decision.is_new_best
    assert all(check.holds for check in decision.checks)
    assert decision.reason.startswith("Promoted: the IoU over all pixels is 0.8500")
    assert "the mean IoU is 0.8500 and the champion's 0.7000" in decision.reason
    assert decision.figures["difference"]["mean"] == pytest.approx(0.15)
    assert decision.figures["difference"]["low"] > 0.12


def test_a_clearly_worse_challenger_is_refused_with_every_reason():
    decision = _judge(_version([0.6] * 100), _version([0.7] * 100))

    assert not decision.promoted
    assert not decision.is_new_best
    assert [check.name for check in decision.checks if check.blocks] == ["lower_bound", "mean", "slice:size:medium"]
    assert decision.reason.startswith("Refused: with 0.95 confidence the mean IoU less that of the champion is at ")
    assert decision.reason.count(";") == 2


def test_a_mean_that_is_slightly_lower_is_refused_though_the_bound_clears_the_margin():
    decision = _judge(_version([0.699] * 100), _version([0.7] * 100), rules=PLAIN)

    assert _check(decision, "lower_bound").holds
    assert _check(decision, "mean").holds is False
    assert not decision.promoted


def test_a_higher_mean_is_refused_where_the_images_do_not_agree():
    # Thirty images, of which most gain nothing, a few much, and two lose all.
    ours = [0.7] * 20 + [1.0] * 8 + [0.0] * 2

    decision = _judge(_version(ours), _version([0.7] * 30), rules=PLAIN)

    assert _check(decision, "mean").holds
    assert _check(decision, "lower_bound").holds is False
    assert not decision.promoted


def test_images_of_one_part_count_as_one_piece_of_evidence():
    ours, theirs = _version([0.9] * 40 + [0.65] * 40), _version([0.7] * 80)
    by_part = [GateImage(image_id=row, group=f"part {row // 8}") for row in range(80)]

    alone = _judge(ours, theirs, rules=PLAIN)
    grouped = _judge(ours, theirs, images=by_part, rules=PLAIN)

    assert alone.promoted
    assert grouped.figures["groups"] == 10
    assert grouped.figures["difference"]["mean"] == alone.figures["difference"]["mean"]
    assert grouped.figures["difference"]["low"] < alone.figures["difference"]["low"] - 0.02


@pytest.mark.parametrize(
    ("count", "is_promoted"),
    [pytest.param(30, False, id="few images"), pytest.param(500, True, id="many images")],
)
def test_equal_scores_are_promoted_once_there_are_enough_images_to_rule_out_a_hidden_loss(count, is_promoted):
    decision = _judge(_version([0.7] * count), _version([0.7] * count))

    assert decision.promoted is is_promoted
    assert _check(decision, "mean").holds
    assert _check(decision, "lower_bound").holds is is_promoted
    assert not decision.is_new_best


def test_too_few_groups_are_refused_however_good_the_challenger_looks():
    decision = _judge(_version([0.9] * 9), _version([0.1] * 9))

    assert not decision.promoted
    assert [check.name for check in decision.checks if check.blocks] == ["groups"]
    assert decision.reason == "Refused: the validation images fall into 9 groups and 10 are needed."


def test_a_loss_in_one_slice_is_refused_though_the_whole_is_better():
    sizes = [SMALL_PX] * 20 + [LARGE_PX] * 80
    ours, theirs = [0.5] * 20 + [0.9] * 80, [0.7] * 100

    decision = _judge(_version(ours, sizes), _version(theirs, sizes))

    assert not decision.promoted
    assert [check.name for check in decision.checks if check.blocks] == ["slice:size:small"]
    assert decision.figures["slices"]["size:small"] == {
        "images": 20,
        "groups": 20,
        "challenger": pytest.approx(0.5),
        "champion": pytest.approx(0.7),
        "difference": pytest.approx(-0.2),
    }


def test_a_loss_in_one_data_set_is_refused():
    images = [
        GateImage(image_id=row, group=str(row), slices=("dataset:old",) if row < 20 else ("dataset:new",))
        for row in range(100)
    ]

    decision = _judge(_version([0.6] * 20 + [0.9] * 80), _version([0.7] * 100), images=images)

    assert [check.name for check in decision.checks if check.blocks] == ["slice:dataset:old"]
    assert _check(decision, "slice:dataset:new").holds
    assert not decision.promoted


def test_a_slice_that_is_too_small_is_said_to_be_unjudged_and_not_to_hold():
    sizes = [SMALL_PX] * 9 + [LARGE_PX] * 91
    ours, theirs = [0.5] * 9 + [0.9] * 91, [0.7] * 100

    decision = _judge(_version(ours, sizes), _version(theirs, sizes))

    assert decision.promoted
    assert _check(decision, "slice:size:small").holds is None
    assert decision.reason.endswith("not judged for want of images: size:small.")
    assert decision.figures["slices"]["size:small"]["difference"] == pytest.approx(-0.2)


def test_a_challenger_below_the_best_version_ever_is_refused_though_it_beats_the_champion():
    best, champion, challenger = _version([0.8] * 100), _version([0.6] * 100), _version([0.7] * 100)

    decision = _judge(challenger, champion, best_ever=best)

    assert not decision.promoted
    assert [check.name for check in decision.checks if check.blocks] == ["best_ever"]
    assert decision.figures["best_ever"]["mean_iou"] == pytest.approx(0.8)
    assert decision.figures["difference_to_best"]["mean"] == pytest.approx(-0.1)


def test_the_same_challenger_passes_where_the_ratchet_is_switched_off():
    best, champion, challenger = _version([0.8] * 100), _version([0.6] * 100), _version([0.7] * 100)

    decision = _judge(challenger, champion, best_ever=best, rules=GateRules(resamples=500, ratchet=False))

    assert decision.promoted
    assert not decision.is_new_best


def test_a_challenger_that_beats_the_champion_only_equals_the_best():
    best, champion, challenger = _version([0.8] * 500), _version([0.6] * 500), _version([0.8] * 500)

    decision = _judge(challenger, champion, best_ever=best)

    assert decision.promoted
    assert not decision.is_new_best


def test_a_challenger_that_calls_everything_clean_is_refused_on_mostly_clean_images():
    sizes = [0] * 95 + [LARGE_PX] * 5
    silent = _version([1.0] * 95 + [0.0] * 5, sizes)
    champion = _version([0.0] * 10 + [1.0] * 85 + [0.8] * 5, sizes)

    decision = _judge(silent, champion, rules=PLAIN)

    assert decision.figures["challenger"]["mean_iou"] > decision.figures["champion"]["mean_iou"]
    assert [check.name for check in decision.checks if check.blocks] == ["finds_defects"]
    assert not decision.promoted


def test_a_validation_side_without_defects_promotes_nobody():
    decision = _judge(_version([1.0] * 100, 0), _version([0.0] * 50 + [1.0] * 50, 0))

    assert not decision.promoted
    assert _check(decision, "finds_defects").holds is None
    assert decision.reason == (
        "Refused: no validation image shows a defect, so that nothing can be said about finding them."
    )


def test_a_good_first_version_is_promoted_on_few_images_and_is_the_best():
    decision = _judge(_version([0.6] * 4), None)

    assert decision.promoted
    assert decision.is_new_best
    assert [check.name for check in decision.checks] == ["finds_defects", "floor"]
    assert decision.figures["champion"] is None
    assert decision.figures["difference"] is None
    assert decision.figures["slices"]["size:medium"]["champion"] is None


@pytest.mark.parametrize(
    ("ious", "sizes", "blocking"),
    [
        pytest.param([0.15] * 10, [MEDIUM_PX] * 10, ["floor"], id="poor everywhere"),
        pytest.param([1.0] * 9 + [0.0], [0] * 9 + [MEDIUM_PX], ["finds_defects"], id="calls everything clean"),
        pytest.param([1.0] * 10, [0] * 10, ["finds_defects"], id="nothing to find"),
        pytest.param([0.0] * 10, [MEDIUM_PX] * 10, ["finds_defects", "floor"], id="finds nothing"),
    ],
)
def test_a_first_version_below_its_floors_is_refused(ious, sizes, blocking):
    decision = _judge(_version(ious, sizes), None)

    assert not decision.promoted
    assert not decision.is_new_best
    assert [check.name for check in decision.checks if check.blocks] == blocking


def test_the_same_scores_give_the_same_decision_in_any_order_of_the_images():
    ours = _version([0.5 + 0.004 * row for row in range(100)])
    theirs = _version([0.8 - 0.003 * row for row in range(100)])

    straight = _judge(ours, theirs)
    backwards = _judge(ours, theirs, images=_images(100)[::-1])

    assert backwards.promoted == straight.promoted
    assert backwards.figures["difference"]["low"] == pytest.approx(straight.figures["difference"]["low"], abs=1e-12)
    assert _judge(ours, theirs).to_json() == straight.to_json()


def test_a_decision_is_json_ready_and_carries_its_rules():
    decision = _judge(_version([0.85] * 20), _version([0.7] * 20), best_ever=_version([0.72] * 20))

    told = json.loads(json.dumps(decision.to_json(), allow_nan=False))

    assert told["promoted"] is decision.promoted
    assert told["reason"] == decision.reason
    assert [check["name"] for check in told["checks"]] == [
        "groups",
        "finds_defects",
        "lower_bound",
        "mean",
        "best_ever",
        "slice:size:medium",
    ]
    assert (told["figures"]["images"], told["figures"]["groups"], told["figures"]["defective_images"]) == (20, 20, 20)
    assert GateRules(**told["figures"]["rules"]) == QUICK


@pytest.mark.parametrize(
    ("images", "champion", "message"),
    [
        pytest.param([], {}, "at least one validation image", id="no image"),
        pytest.param(_images(2) * 2, _version([0.5] * 2), "each of them once", id="an image twice"),
        pytest.param(_images(2), _version([0.5]), "not scored on the same images: 1 of them", id="a score is missing"),
        pytest.param(_images(2), _version([0.5] * 3), "such as image 2", id="a score too many"),
        pytest.param(_images(2), _version([0.5] * 2, SMALL_PX), "different labels of 2 images", id="other labels"),
    ],
)
def test_versions_that_did_not_see_the_same_are_not_compared(images, champion, message):
    with pytest.raises(ScoresNotComparable, match=message):
        judge(images, challenger=_version([0.5] * 2), champion=champion, best_ever=None)


@pytest.mark.parametrize(
    ("label_px", "band"),
    [
        pytest.param(0, "none", id="clean"),
        pytest.param(1, "small", id="a single pixel"),
        pytest.param(2_499, "small", id="just below 0.25 %"),
        pytest.param(2_500, "medium", id="0.25 %"),
        pytest.param(22_499, "medium", id="just below 2.25 %"),
        pytest.param(22_500, "large", id="2.25 %"),
        pytest.param(IMAGE_PX, "large", id="all of it"),
    ],
)
def test_a_size_band_is_the_share_of_the_image(label_px, band):
    assert size_band(label_px, IMAGE_PX) == band


def test_an_image_that_is_all_ignored_is_in_the_band_of_clean_ones():
    assert size_band(0, 0) == "none"


@pytest.mark.parametrize(
    "values",
    [
        pytest.param({"margin": -0.1}, id="a negative margin"),
        pytest.param({"confidence": 0.5}, id="no confidence"),
        pytest.param({"confidence": 1.0}, id="certainty"),
        pytest.param({"resamples": 10}, id="hardly a resample"),
        pytest.param({"floor_pooled_iou": 0.0}, id="no floor"),
        pytest.param({"min_groups": 0}, id="no groups"),
        pytest.param({"min_slice_groups": 0}, id="no groups in a slice"),
    ],
)
def test_rules_out_of_range_are_refused(values):
    with pytest.raises(InvalidRequest, match=next(iter(values))):
        GateRules(**values)
