"""Changes to exported files, each wrong in one stated way."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper


def write_changed(source, target, change):
    """Write a copy of a model file after a change of its graph."""
    model = onnx.load(source)
    change(model)
    onnx.save(model, target)
    return target


def scale(model, name, factor):
    """Multiply a weight."""
    weight = next(weight for weight in model.graph.initializer if weight.name == name)
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(factor), name))


def turn_last_kernels(model):
    """Turn the sign of the last three kernels."""
    kernels = [node.input[1] for node in model.graph.node if node.op_type == "Conv"]
    for name in kernels[-3:]:
        scale(model, name, -1)


def overflow(model, factor=3e4):
    """Make the values between two convolutions huge and the second small: the same answers, but not in fp16."""
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    for first in convolutions:
        relu = next((node for node in model.graph.node if first.output[0] in node.input), None)
        readers = [node for node in model.graph.node if relu is not None and relu.output[0] in node.input]
        if relu is not None and relu.op_type == "Relu" and [node.op_type for node in readers] == ["Conv"]:
            for name in first.input[1:]:
                scale(model, name, factor)
            scale(model, readers[0].input[1], 1 / factor)
            return
    raise LookupError("No two convolutions follow each other.")
