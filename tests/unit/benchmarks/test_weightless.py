"""Models sent without their weights."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from benchmarks.weightless import empty_weights, fill_weights


@pytest.fixture
def model_path(tmp_path):
    """A multiplication by a large matrix, then by a small constant."""
    path = tmp_path / "model.onnx"
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "large"], ["y"]), helper.make_node("Mul", ["y", "small"], ["z"])],
        "two",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 64])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["n", 64])],
        [
            numpy_helper.from_array(np.full((64, 64), 7.0, dtype=np.float32), "large"),
            numpy_helper.from_array(np.array(3.0, dtype=np.float32), "small"),
        ],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


def test_a_model_without_its_weights_is_small_and_is_filled_with_random_ones(model_path, tmp_path):
    empty, filled = tmp_path / "empty.onnx", tmp_path / "filled.onnx"

    empty_weights(model_path, empty)
    count = fill_weights(empty, filled)

    session = onnxruntime.InferenceSession(filled, providers=["CPUExecutionProvider"])
    (out,) = session.run(None, {"x": np.ones((2, 64), dtype=np.float32)})
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(filled).graph.initializer}
    assert empty.stat().st_size < model_path.stat().st_size / 10
    assert count == 64 * 64
    assert constants["small"] == 3.0
    assert constants["large"].std() == pytest.approx((2 / 64) ** 0.5, rel=0.1)
    assert np.isfinite(out).all()


def test_a_complete_model_keeps_its_weights(model_path, tmp_path):
    filled = tmp_path / "filled.onnx"

    count = fill_weights(model_path, filled)

    assert count == 0
    assert onnx.load(filled) == onnx.load(model_path)


def test_the_same_seed_gives_the_same_weights(model_path, tmp_path):
    empty = tmp_path / "empty.onnx"
    empty_weights(model_path, empty)

    for name in ("first", "second"):
        fill_weights(empty, tmp_path / name, seed=3)

    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()
