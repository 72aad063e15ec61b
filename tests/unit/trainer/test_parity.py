"""Parity: the exported file is held against the network on real images, and a file that differs is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from defectoscope.errors.training import ExportParityFailed
from defectoscope.segmentation import PixelCounts
from tests.unit.trainer.graphs import turn_last_kernels, write_changed
from tests.unit.trainer.parts import write_parts
from trainer.data import read_directory
from trainer.parity import FP16, Parity, ScoreLoss, compare, demand, demand_scores, measure_loss, remember
from trainer.runtime import onnx_engine
from trainer.served import torch_engine

GOOD = Parity(images=8, batch_size=4, max_level_difference=1, mask_iou=1.0, flipped_verdicts=0)


def _compare(training, *, exported, files=None):
    return compare(
        files or training.files.val,
        reference=torch_engine(training.network),
        exported=exported,
        contract=training.contract,
        batch_size=4,
    )


def test_an_exported_network_passes(tiny_training):
    parity = _compare(tiny_training, exported=onnx_engine(tiny_training.model_path))

    demand(parity)
    assert parity.images == 8
    assert parity.max_level_difference <= 1
    assert parity.mask_iou >= 0.999
    assert parity.flipped_verdicts == 0


def test_a_file_with_disturbed_weights_is_refused_with_its_figures(tiny_training, tmp_path):
    path = write_changed(tiny_training.model_path, tmp_path / "model.onnx", turn_last_kernels)

    parity = _compare(tiny_training, exported=onnx_engine(path))

    with pytest.raises(ExportParityFailed, match="it was not registered") as refusal:
        demand(parity)
    assert refusal.value.details == parity.to_json()
    assert parity.max_level_difference > 10


def test_an_engine_that_is_right_in_batches_but_wrong_alone_is_refused(tiny_training):
    right = onnx_engine(tiny_training.model_path)

    def wrong_alone(images):
        return 255 - right(images) if len(images) == 1 else right(images)

    parity = _compare(tiny_training, exported=wrong_alone)

    assert parity.mask_iou < 0.999


def test_a_non_square_image_is_compared_even_if_the_dataset_has_none(tiny_training, tmp_path):
    write_parts(tmp_path, split="train", sizes_wh=[(64, 64)])
    write_parts(tmp_path, split="val", sizes_wh=[(64, 64), (64, 64)])

    parity = _compare(tiny_training, exported=onnx_engine(tiny_training.model_path), files=read_directory(tmp_path).val)

    assert parity.images == 3


@pytest.mark.parametrize(
    "figures",
    [
        pytest.param(replace(GOOD, mask_iou=0.9989), id="masks differ"),
        pytest.param(replace(GOOD, flipped_verdicts=1), id="a verdict flips"),
    ],
)
def test_figures_outside_the_tolerance_are_refused(figures):
    with pytest.raises(ExportParityFailed):
        demand(figures)


def test_figures_at_the_tolerance_pass():
    demand(replace(GOOD, mask_iou=0.999))


@pytest.mark.parametrize(
    "figures",
    [
        pytest.param(replace(GOOD, mask_iou=0.995), id="at the tolerance"),
        pytest.param(replace(GOOD, images=100, flipped_verdicts=1), id="one verdict of a hundred flips"),
    ],
)
def test_fp16_may_differ_more_than_fp32(figures):
    demand(figures, FP16)

    with pytest.raises(ExportParityFailed):
        demand(figures)


@pytest.mark.parametrize(
    "figures",
    [
        pytest.param(replace(GOOD, mask_iou=0.9949), id="masks differ"),
        pytest.param(replace(GOOD, flipped_verdicts=1), id="one verdict of eight flips"),
        pytest.param(replace(GOOD, images=199, flipped_verdicts=2), id="more than one of a hundred flips"),
    ],
)
def test_fp16_outside_its_tolerance_is_refused(figures):
    with pytest.raises(ExportParityFailed, match="The fp16 model differs from the trained one"):
        demand(figures, FP16)


def test_an_image_that_flips_alone_and_in_a_batch_counts_once(tiny_training):
    parity = _compare(tiny_training, exported=lambda images: np.zeros(images.shape[:3], dtype=np.uint8))

    assert 0 < parity.flipped_verdicts <= parity.images


def test_a_remembered_engine_is_asked_once_for_each_batch():
    asked = []

    def engine(images):
        asked.append(images.copy())
        return images[..., 0]

    remembered = remember(engine)
    one, other = (np.full((2, 4, 4, 3), value, dtype=np.uint8) for value in (1, 2))

    answers = [remembered(images) for images in (one, other, one.copy(), one[:1])]

    assert [int(answer[0, 0, 0]) for answer in answers] == [1, 2, 1, 1]
    assert [len(answer) for answer in answers] == [2, 2, 2, 1]
    assert len(asked) == 3


def test_the_loss_is_the_mean_over_images_of_the_iou_of_defects():
    fp32 = [PixelCounts(tp=8, fp=0, fn=2, tn=90), PixelCounts(tp=0, fp=0, fn=0, tn=100)]
    int8 = [PixelCounts(tp=6, fp=0, fn=4, tn=90), PixelCounts(tp=0, fp=1, fn=0, tn=99)]

    loss = measure_loss(int8, fp32_counts=fp32)

    assert loss.validation_iou_fp32 == pytest.approx((0.8 + 1.0) / 2)
    assert loss.validation_iou == pytest.approx((0.6 + 0.0) / 2)
    assert loss.validation_flipped_verdicts == 1


LOSS = ScoreLoss(validation_images=200, validation_iou=0.7, validation_iou_fp32=0.7, validation_flipped_verdicts=0)


@pytest.mark.parametrize(
    "loss",
    [
        pytest.param(LOSS, id="equal"),
        pytest.param(replace(LOSS, validation_iou=0.6951), id="within the tolerance"),
        pytest.param(replace(LOSS, validation_iou=0.8), id="better"),
        pytest.param(replace(LOSS, validation_flipped_verdicts=2), id="one of a hundred flips"),
    ],
)
def test_a_small_loss_passes(loss):
    demand_scores(loss)


@pytest.mark.parametrize(
    "loss",
    [
        pytest.param(replace(LOSS, validation_iou=0.6949), id="more than 0.005 is lost"),
        pytest.param(replace(LOSS, validation_flipped_verdicts=3), id="more than one of a hundred flips"),
    ],
)
def test_a_greater_loss_is_refused_with_its_figures(loss):
    with pytest.raises(ExportParityFailed, match="The int8 model is worse than the fp32 one") as refusal:
        demand_scores(loss)

    assert refusal.value.details == loss.to_json()
