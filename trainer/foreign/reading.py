"""Reads a foreign file into a model whose every part is known to be harmless, or refuses it by name.

The order is fixed: size, parse, external data, declared sizes, operators. Only bytes that were read here are looked at;
a path that the model names is never opened. Model-local functions are part of the ONNX standard and are written out
into the graph; operators of any other domain are refused, also those of ONNX Runtime itself, which a file that was
optimised with it holds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import onnx
from google.protobuf.descriptor import FieldDescriptor  # type: ignore[import-untyped]  # it ships no types
from google.protobuf.message import DecodeError, Message  # type: ignore[import-untyped]  # it ships no types
from onnx import AttributeProto, ModelProto, NodeProto, SparseTensorProto, TensorProto
from onnx.inliner import inline_local_functions

from defectoscope.errors.models import ModelExternalData, ModelNotOnnx, ModelOpsetRefused, ModelTooLarge
from trainer.foreign.graph import subgraphs_of
from trainer.foreign.limits import FileLimits
from trainer.foreign.operators import STANDARD_DOMAINS, demand_allowed, refusal

#: Older sets lack operators that normalisation and rounding need.
MIN_OPSET = 11


def read_model(path: Path, *, limits: FileLimits) -> ModelProto:
    """Read a file and check all that can be checked without running it.

    Args:
        path: the file.
        limits: what it may weigh.

    Returns:
        The model, valid, of standard operators only and without functions.

    Raises:
        ModelTooLarge: the file, a tensor that it declares or the number of its operators exceeds a limit.
        ModelNotOnnx: the bytes are not an ONNX model, or not a valid one.
        ModelExternalData: weights are in other files.
        ModelOpsetRefused: its operator set is too old.
        ModelOperatorRefused: an operator is not of the standard, or not of those that `operators` allows.
    """
    try:
        size_bytes = path.stat().st_size
    except OSError as exc:
        raise ModelNotOnnx(f"{path.name} cannot be read: {exc.strerror}.") from exc
    if size_bytes > limits.max_bytes:
        raise ModelTooLarge(
            f"The file has {size_bytes} bytes; at most {limits.max_bytes} are accepted.",
            size_bytes=size_bytes,
            max_bytes=limits.max_bytes,
        )
    model = _parse(path.read_bytes())
    for part in _parts(model, limits=limits):
        if isinstance(part, TensorProto):
            if part.data_location == TensorProto.EXTERNAL or part.external_data:
                raise ModelExternalData
            _demand_tensor_fits(part.name, part.dims, part.data_type, limits=limits)
        elif isinstance(part, SparseTensorProto):
            # Few values may stand for a tensor of any size, which the runtime would write out.
            _demand_tensor_fits(part.values.name, part.dims, part.values.data_type, limits=limits)
        elif isinstance(part, AttributeProto):
            _demand_attribute_fits(part, limits=limits)
    _check_opset(model)
    _check_operators(model, limits=limits)
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as exc:
        raise ModelNotOnnx(f"The model is not valid ONNX: {_first_line(exc)}") from exc
    if model.functions:
        model = inline_local_functions(model)
    return model


def demand_values_fit(model: ModelProto, *, limits: FileLimits) -> None:
    """Demand that no value on the way through the graph, as far as its shape can be foretold, is too large.

    Args:
        model: its input has a fixed shape, with one image.
        limits: what a value may weigh.

    Raises:
        ModelTooLarge: one is.
        ModelNotOnnx: the shapes in the graph contradict each other.
    """
    try:
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    except onnx.shape_inference.InferenceError as exc:
        raise ModelNotOnnx(f"The model is not valid ONNX: {_first_line(exc)}") from exc
    for value in inferred.graph.value_info:
        kind = value.type.tensor_type
        if kind.HasField("shape"):
            # An unknown side counts as one: what cannot be foretold is left to the limits of the process.
            dims = [dim.dim_value if dim.HasField("dim_value") else 1 for dim in kind.shape.dim]
            _demand_tensor_fits(value.name, dims, kind.elem_type, limits=limits)


def _parse(data: bytes) -> ModelProto:
    try:
        model: ModelProto = ModelProto.FromString(data)
    except DecodeError as exc:
        raise ModelNotOnnx from exc
    # Protobuf takes many a file for an empty or nearly empty message.
    if not model.ir_version or not model.opset_import or not model.graph.node:
        raise ModelNotOnnx
    return model


def _check_opset(model: ModelProto) -> None:
    versions = [entry.version for entry in model.opset_import if entry.domain in STANDARD_DOMAINS]
    if len(versions) != 1:
        raise ModelNotOnnx("The model is not valid ONNX: it names no operator set of the standard, or several.")
    if versions[0] < MIN_OPSET:
        raise ModelOpsetRefused(opset=versions[0], min_opset=MIN_OPSET)


def _check_operators(model: ModelProto, *, limits: FileLimits) -> None:
    """Walk through the graph and the functions it calls, each of them once, and count what writing them out gives."""
    functions = {(function.domain, function.name, function.overload): function for function in model.functions}
    sizes: dict[tuple[str, str, str], int] = {}
    being_counted: set[tuple[str, str, str]] = set()

    def count(nodes: Iterable[NodeProto]) -> int:
        total = 0
        for node in nodes:
            called = (node.domain, node.op_type, node.overload)
            total += 1
            if called in functions:
                if called in being_counted:
                    raise ModelNotOnnx(f"The model is not valid ONNX: its function {node.op_type} calls itself.")
                if called not in sizes:
                    being_counted.add(called)
                    sizes[called] = count(functions[called].node)
                    being_counted.remove(called)
                total += sizes[called]
            elif node.domain not in STANDARD_DOMAINS:
                raise refusal(node, "it is not of the ONNX standard")
            elif onnx.defs.has(node.op_type):
                # What is no operator at all, the checker of the standard refuses with a better sentence.
                demand_allowed(node)
            total += sum(count(graph.node) for graph in subgraphs_of(node))
            if total > limits.max_nodes:
                raise ModelTooLarge(
                    f"The model has more than {limits.max_nodes} operators.", max_nodes=limits.max_nodes
                )
        return total

    try:
        count(model.graph.node)
    except RecursionError as exc:
        raise ModelTooLarge("The model's functions or subgraphs are nested too deeply.") from exc


def _demand_tensor_fits(name: str, dims: Sequence[int], data_type: int, *, limits: FileLimits) -> None:
    # The half-byte types count as a byte; text has no size of its own.
    item_bytes = 8 if data_type in {TensorProto.UNDEFINED, TensorProto.STRING} else _item_bytes(data_type)
    if min(dims, default=0) < 0:
        raise ModelNotOnnx(f'The model is not valid ONNX: the tensor "{name}" has a negative size.')
    size_bytes = math.prod(dims) * item_bytes
    if size_bytes > limits.max_tensor_bytes:
        raise ModelTooLarge(
            f'The tensor "{name}" declares {size_bytes} bytes; at most {limits.max_tensor_bytes} are accepted.',
            tensor=name,
            size_bytes=size_bytes,
            max_bytes=limits.max_tensor_bytes,
        )


def _demand_attribute_fits(attribute: AttributeProto, *, limits: FileLimits) -> None:
    """Lists and texts in attributes are settings of an operator; weights are tensors."""
    values = max(len(attribute.s), len(attribute.ints), len(attribute.floats), len(attribute.strings))
    if values > limits.max_attribute_values:
        raise ModelTooLarge(
            f'The attribute "{attribute.name}" has {values} values; at most {limits.max_attribute_values} fit.',
            values=values,
        )


def _item_bytes(data_type: int) -> int:
    try:
        return int(onnx.helper.tensor_dtype_to_np_dtype(data_type).itemsize)
    except KeyError as exc:
        raise ModelNotOnnx("The model is not valid ONNX: a tensor has an unknown type.") from exc


def _parts(model: ModelProto, *, limits: FileLimits) -> Iterator[Message]:
    """Yield every message inside the model, wherever it is and whether it is used or not."""
    waiting: list[Message] = [model]
    count = 0
    while waiting:
        part = waiting.pop()
        count += 1
        if count > limits.max_parts:
            raise ModelTooLarge(f"The model has more than {limits.max_parts} parts.", max_parts=limits.max_parts)
        yield part
        for field, value in part.ListFields():
            if field.message_type is not None:
                waiting += [value] if isinstance(value, Message) else value
            elif field.type == FieldDescriptor.TYPE_STRING and not _is_text(value):
                raise ModelNotOnnx(f"The model is not valid ONNX: in {field.full_name} stands what is no text.")


def _is_text(value: str | bytes | Sequence[str | bytes]) -> bool:
    """Protocol Buffers hands over as bytes what it cannot read as UTF-8."""
    return isinstance(value, str) or not (isinstance(value, bytes) or any(isinstance(one, bytes) for one in value))


def _first_line(exc: Exception) -> str:
    return str(exc).strip().partition("\n")[0]
