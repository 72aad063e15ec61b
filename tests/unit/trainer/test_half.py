"""The fp16 file: bytes in and out, halves between, and a judge that rounds as a GPU does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from defectoscope.errors.training import VariantNotMade
from tests.unit.trainer.graphs import overflow, write_changed
from trainer.export import stamp
from trainer.graph import read_graph
from trainer.half import half_engine, write_half
from trainer.runtime import onnx_engine, read_contract
from trainer.served import torch_engine


@pytest.fixture(scope="module")
def half_path(tiny_training, tmp_path_factory):
    path = tmp_path_factory.mktemp("half") / "model-fp16.onnx"
    write_half(tiny_training.model_path, path)
    return path


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)


def test_the_file_keeps_the_contract_and_takes_another_stamp(tiny_training, half_path):
    numbered = replace(tiny_training.contract, version=7)

    assert read_contract(half_path) == tiny_training.contract
    stamp(half_path, numbered)

    assert read_contract(half_path) == numbered


def test_the_file_holds_its_kernels_in_fp16_but_the_classifier(half_path):
    model = onnx.load(half_path)

    kernels = [weight.data_type for weight in model.graph.initializer if len(weight.dims) == 4]
    assert kernels.count(TensorProto.FLOAT) == len({"mean", "scale", "classifier"})
    assert kernels.count(TensorProto.FLOAT16) > 10
    assert {entry.domain for entry in model.opset_import} == {""}


def test_scales_of_resize_stay_fp32_and_pixels_go_through_it_in_fp16(half_path):
    model = read_graph(half_path)
    types = {value.name: value.type.tensor_type.elem_type for value in model.graph.value_info}
    types |= {weight.name: weight.data_type for weight in model.graph.initializer}

    enlargements = [node for node in model.graph.node if node.op_type == "Resize"]

    assert {types[node.input[2]] for node in enlargements if node.input[2]} == {TensorProto.FLOAT}
    assert [types[node.input[0]] for node in enlargements] == [
        TensorProto.FLOAT16,
        TensorProto.FLOAT16,
        TensorProto.FLOAT,
    ]


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_the_file_is_near_the_network_at_every_batch_size(tiny_training, half_path, batch):
    images = np.random.default_rng(batch).integers(0, 256, (batch, 64, 64, 3), dtype=np.uint8)

    levels = onnx_engine(half_path)(images)

    expected = torch_engine(tiny_training.network)(images)
    assert levels.dtype == np.uint8
    assert levels.shape == (batch, 64, 64)
    assert np.abs(levels.astype(int) - expected.astype(int)).max() <= 4


def test_the_judge_rounds_what_the_cpu_leaves_exact(tiny_training, half_path, images):
    exact = torch_engine(tiny_training.network)(images).astype(int)

    by_cpu, as_on_gpu = (
        np.abs(engine(images) - exact).sum() for engine in (onnx_engine(half_path), half_engine(half_path))
    )

    assert as_on_gpu > by_cpu > 0


def test_values_beyond_fp16_are_found_which_the_cpu_hides(tiny_training, tmp_path, images):
    source = write_changed(tiny_training.model_path, tmp_path / "model.onnx", overflow)
    path = tmp_path / "model-fp16.onnx"
    write_half(source, path)

    onnx_engine(path)(images)

    with pytest.raises(VariantNotMade, match="not a number"):
        half_engine(path)(images)


def test_a_weight_beyond_fp16_is_refused_by_name(tiny_training, tmp_path):
    def enlarge(model):
        kernel = next(weight for weight in model.graph.initializer if weight.name == _first_kernel(model))
        kernel.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(kernel) * np.float32(1e7), kernel.name))

    source = write_changed(tiny_training.model_path, tmp_path / "model.onnx", enlarge)

    with pytest.raises(VariantNotMade, match=rf"{_first_kernel(onnx.load(source))} reaches .* fp16 ends at 65504"):
        write_half(source, tmp_path / "model-fp16.onnx")

    assert not (tmp_path / "model-fp16.onnx").exists()


def test_a_graph_without_weights_is_refused(tmp_path):
    graph = helper.make_graph(
        [helper.make_node("Identity", ["image"], ["defect"])],
        "nothing",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", 4])],
        [helper.make_tensor_value_info("defect", TensorProto.UINT8, ["batch", 4])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]), tmp_path / "model.onnx")

    with pytest.raises(VariantNotMade, match="nothing that fp16 would make faster"):
        write_half(tmp_path / "model.onnx", tmp_path / "model-fp16.onnx")


def _first_kernel(model):
    return next(node.input[1] for node in model.graph.node if node.op_type == "Conv")
