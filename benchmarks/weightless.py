"""ONNX files without their weights, small enough to be sent anywhere, and random weights to fill them with.

Speed does not depend on the weights. Only `onnx` and `numpy` are needed.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

#: Smaller constants stay: they are shapes, scales and statistics.
_LEAST_VALUES = 1024
_TYPES = {TensorProto.FLOAT: np.float32, TensorProto.FLOAT16: np.float16}


def empty_weights(source: Path, target: Path) -> None:
    """Write a model without the values of its large weights; their names, types and shapes stay.

    Args:
        source: a model file with its weights inside.
        target: the file to write; no engine can load it.
    """
    model = onnx.load(source)
    for tensor in model.graph.initializer:
        if _is_weight(tensor):
            tensor.ClearField("raw_data")
            tensor.ClearField("float_data")
            tensor.ClearField("int32_data")
    onnx.save(model, target)


def fill_weights(source: Path, target: Path, *, seed: int = 0) -> int:
    """Write a model with random values wherever `empty_weights` took some away.

    They are normally distributed, with the spread by which signals keep their size from layer to layer (He 2015), so
    that fp16 does not overflow.

    Args:
        source: from `empty_weights`; a complete model is written as it is.
        target: the file to write.
        seed: the same seed gives the same file.

    Returns:
        How many values were filled in.
    """
    generator = np.random.default_rng(seed)
    model = onnx.load(source)
    filled = 0
    for tensor in model.graph.initializer:
        if _is_weight(tensor) and not (tensor.raw_data or tensor.float_data or tensor.int32_data):
            shape = tuple(tensor.dims)
            spread = math.sqrt(2 / max(1, math.prod(shape[1:])))
            values = generator.standard_normal(shape, dtype=np.float32) * np.float32(spread)
            tensor.CopyFrom(numpy_helper.from_array(values.astype(_TYPES[tensor.data_type]), tensor.name))
            filled += values.size
    onnx.save(model, target)
    return filled


def _is_weight(tensor: TensorProto) -> bool:
    return tensor.data_type in _TYPES and math.prod(tensor.dims) >= _LEAST_VALUES
