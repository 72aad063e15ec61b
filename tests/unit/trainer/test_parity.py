"""Parity: the exported file is held against the network on real images, and a file that differs is refused."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import onnx
import pytest

from defectoscope.errors import ExportParityFailed
from tests.unit.trainer.parts import write_parts
from trainer.data import read_directory
from trainer.parity import Parity, compare, demand
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
    path = shutil.copyfile(tiny_training.model_path, tmp_path / "model.onnx")
    model = onnx.load(path)
    kernels = [
        tensor
        for tensor in model.graph.initializer
        if len(tensor.dims) == 4 and tensor.data_type == onnx.TensorProto.FLOAT
    ]
    for kernel in kernels[-3:]:
        disturbed = onnx.numpy_helper.to_array(kernel) * np.float32(-1)
        kernel.CopyFrom(onnx.numpy_helper.from_array(disturbed, kernel.name))
    onnx.save(model, path)

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
