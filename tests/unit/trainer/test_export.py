"""The exported file: the contract inside, one signature, the network's very bytes out."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import onnx
import pytest

from defectoscope.errors.models import InvalidModel
from defectoscope.errors.training import TrainingFailed
from trainer.export import OPSET, stamp
from trainer.runtime import onnx_engine, read_contract
from trainer.served import torch_engine


def test_the_file_carries_its_contract(tiny_training):
    assert read_contract(tiny_training.model_path) == tiny_training.contract


def test_a_stamp_replaces_the_contract_and_leaves_the_graph(tiny_training, tmp_path):
    path = shutil.copyfile(tiny_training.model_path, tmp_path / "v7.onnx")
    numbered = replace(tiny_training.contract, version=7)

    stamp(path, numbered)

    assert read_contract(path) == numbered
    assert onnx.load(path).graph == onnx.load(tiny_training.model_path).graph


def test_the_file_is_complete_in_itself_and_of_the_pinned_opset(tiny_training):
    model = onnx.load(tiny_training.model_path, load_external_data=False)

    assert {tensor.data_location for tensor in model.graph.initializer} == {onnx.TensorProto.DEFAULT}
    assert {entry.version for entry in model.opset_import if not entry.domain} == {OPSET}
    assert {entry.domain for entry in model.opset_import if entry.domain} <= {"", "pkg.onnxscript.torch_lib.common"}


@pytest.mark.parametrize("batch", [1, 2, 3, 8])
def test_the_file_answers_as_the_network_does_at_every_batch_size(tiny_training, batch):
    images = np.random.default_rng(batch).integers(0, 256, (batch, 64, 64, 3), dtype=np.uint8)

    levels = onnx_engine(tiny_training.model_path)(images)

    expected = torch_engine(tiny_training.network)(images)
    assert levels.shape == (batch, 64, 64)
    assert levels.dtype == np.uint8
    assert np.abs(levels.astype(int) - expected.astype(int)).max() <= 1


def test_a_file_of_another_size_than_its_contract_is_refused(tiny_training, tmp_path):
    path = shutil.copyfile(tiny_training.model_path, tmp_path / "model.onnx")

    with pytest.raises(TrainingFailed, match=r"no image of \(batch, 128, 128, 3\) uint8"):
        stamp(path, replace(tiny_training.contract, input_size_wh=(128, 128)))


def test_a_damaged_file_is_refused_by_name(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"not a model")

    with pytest.raises(InvalidModel, match="cannot load"):
        onnx_engine(path)
