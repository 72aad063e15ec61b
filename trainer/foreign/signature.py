"""What a foreign model says it takes and gives, and whether that can be wrapped. Nothing is run here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx
from onnx import ModelProto, TensorProto, ValueInfoProto

from defectoscope.errors.models import (
    ModelInputRefused,
    ModelOutputRefused,
    ModelSizeConflict,
    ModelSizeUnknown,
    ModelTooLarge,
)
from defectoscope.segmentation import INPUT_NAME, OUTPUT_NAME
from trainer.foreign.limits import FileLimits

_RANK = 4
_COLOURS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """A foreign model from outside.

    Attributes:
        input_name: of its one input, float32 (N, 3, H, W).
        output_name: of its one output, float32.
        batch: images it takes at once, or None for any number.
        size_wh: width and height it is wrapped for.
    """

    input_name: str
    output_name: str
    batch: int | None
    size_wh: tuple[int, int]


def read_signature(model: ModelProto, *, size_wh: tuple[int, int] | None, limits: FileLimits) -> Signature:
    """Read the signature and demand that it can be wrapped.

    Args:
        model: from `trainer.foreign.reading.read_model`; constants are removed from its list of inputs, where old files
            have them.
        size_wh: the size it was trained on; needed where the file leaves it open.
        limits: how large it may be.

    Raises:
        ModelInputRefused: not one float32 (N, 3, H, W).
        ModelOutputRefused: not one float32 of rank 4.
        ModelSizeUnknown: the file leaves the size open and none was given.
        ModelSizeConflict: the file fixes another size than the one given.
        ModelTooLarge: the size is beyond the limit.
    """
    graph = model.graph
    constants = {tensor.name for tensor in graph.initializer}
    for index in reversed(range(len(graph.input))):
        if graph.input[index].name in constants:
            del graph.input[index]
    dims = _input_dims(graph.input)
    batch, channels, height, width = dims
    if channels not in {None, _COLOURS}:
        hint = "; it has its channels last" if width == _COLOURS else ""
        raise ModelInputRefused(
            f"The model's input is {_write(dims)}, not (N, 3, H, W){hint}.", shape=[_plain(dim) for dim in dims]
        )
    _check_output(graph.output)
    return Signature(
        input_name=graph.input[0].name,
        output_name=graph.output[0].name,
        batch=batch,
        size_wh=_choose_size(width, height, size_wh=size_wh, limits=limits),
    )


def fix_input(model: ModelProto, signature: Signature, *, batch: int | str) -> None:
    """Write sides and batch into the declared input, and forget what was declared of every other value's shape."""
    width, height = signature.size_wh
    declared = onnx.helper.make_tensor_value_info(
        signature.input_name, TensorProto.FLOAT, [batch, _COLOURS, height, width]
    )
    model.graph.ClearField("input")
    model.graph.input.append(declared)
    model.graph.ClearField("value_info")
    model.graph.output[0].type.tensor_type.ClearField("shape")


def _input_dims(inputs: Sequence[ValueInfoProto]) -> list[int | None]:
    if len(inputs) != 1:
        raise ModelInputRefused(f"The model has {len(inputs)} inputs; it must have one.", inputs=len(inputs))
    kind = inputs[0].type.tensor_type
    if inputs[0].name == INPUT_NAME and kind.elem_type == TensorProto.UINT8:
        raise ModelInputRefused("The model's input is uint8: it keeps the model contract already and is not wrapped.")
    if kind.elem_type != TensorProto.FLOAT:
        name = TensorProto.DataType.Name(kind.elem_type).lower()
        raise ModelInputRefused(f"The model's input is of type {name}, not float32.", dtype=name)
    dims = _dims(inputs[0])
    if dims is None or len(dims) != _RANK:
        shape = "of no stated shape" if dims is None else _write(dims)
        raise ModelInputRefused(f"The model's input is {shape}, not (N, 3, H, W).")
    return dims


def _check_output(outputs: Sequence[ValueInfoProto]) -> None:
    if len(outputs) != 1:
        raise ModelOutputRefused(f"The model has {len(outputs)} outputs; it must have one.", outputs=len(outputs))
    kind = outputs[0].type.tensor_type
    if kind.elem_type not in {TensorProto.FLOAT, TensorProto.UNDEFINED}:
        name = TensorProto.DataType.Name(kind.elem_type).lower()
        hint = "; it keeps the model contract already" if outputs[0].name == OUTPUT_NAME else ""
        raise ModelOutputRefused(f"The model's output is of type {name}, not float32{hint}.", dtype=name)
    dims = _dims(outputs[0])
    if dims is not None and len(dims) != _RANK:
        raise ModelOutputRefused(f"The model's output is {_write(dims)}, not (N, 2, H, W) or (N, 1, H, W).")


def _choose_size(
    width: int | None, height: int | None, *, size_wh: tuple[int, int] | None, limits: FileLimits
) -> tuple[int, int]:
    if size_wh is None:
        if width is None or height is None:
            raise ModelSizeUnknown
        size_wh = (width, height)
    if width not in {None, size_wh[0]} or height not in {None, size_wh[1]}:
        raise ModelSizeConflict(
            f"The model takes images of {_text(width)} x {_text(height)} pixels, not of {size_wh[0]} x {size_wh[1]}.",
            width=width,
            height=height,
        )
    if not all(1 <= side <= limits.max_side_px for side in size_wh):
        raise ModelTooLarge(
            f"The model takes images of {size_wh[0]} x {size_wh[1]} pixels; "
            f"sides of 1 to {limits.max_side_px} are accepted.",
            max_side_px=limits.max_side_px,
        )
    return size_wh


def _dims(value: ValueInfoProto) -> list[int | None] | None:
    kind = value.type.tensor_type
    if not kind.HasField("shape"):
        return None
    return [dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else None for dim in kind.shape.dim]


def _write(dims: Sequence[int | None]) -> str:
    return f"({', '.join(_text(dim) for dim in dims)})"


def _text(dim: int | None) -> str:
    return "any" if dim is None else str(dim)


def _plain(dim: int | None) -> int | str:
    return "any" if dim is None else dim
