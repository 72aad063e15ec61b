"""Writes the fp16 variant of an exported file, and judges it as a GPU would compute it, also where there is no GPU.

The file is made from the fp32 file and not from the network: batch normalisation is folded into the weights there, in
fp32, before anything is rounded. Bytes in and bytes out stay as they are; so do normalisation, the classifier and all
after it, and the scales of Resize, which the operator demands in fp32.

ONNX Runtime has few fp16 operators for the CPU. For the others it computes in fp32 and leaves out the rounding in
between, so that a CPU never shows what a GPU would lose, nor a value beyond the range of fp16. `half_engine` puts the
rounding back.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from defectoscope.errors.training import VariantNotMade
from defectoscope.segmentation import INPUT_NAME, OUTPUT_NAME, Engine, UInt8Array
from trainer.graph import WEIGHTED, closing_values, float_values, read_graph
from trainer.runtime import open_session, run_session

_LARGEST = float(np.finfo(np.float16).max)
#: Inputs that an operator takes in fp32 only: the region and the scales of Resize.
_FP32_INPUTS = {"Resize": (1, 2)}
#: Operators that engines do not offer in fp16, or that nothing is gained with.
_FP32_OPERATORS = frozenset({"Cast", "CumSum", "Max", "Min", "Range", "TopK", "Upsample"})
#: Operators that ask a value for its size only, whatever its type.
_ANY_TYPE = frozenset({"Shape", "Size"})


def write_half(source: Path, target: Path) -> None:
    """Write the fp16 variant of a file.

    Args:
        source: the fp32 file.
        target: the file to write; `trainer.export.stamp` checks it.

    Raises:
        VariantNotMade: the graph cannot be read, a weight is beyond the range of fp16, or there is nothing to halve.
    """
    model = read_graph(source)
    graph = model.graph
    floats = float_values(model)
    halved = _halved_results(model, floats)
    if not halved:
        raise VariantNotMade("The network holds nothing that fp16 would make faster.")
    weights = {weight.name: weight for weight in graph.initializer}
    copies: dict[str, TensorProto] = {}
    casts: set[str] = set()
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        in_half = node.output[0] in halved
        for position, name in enumerate(node.input):
            wants_half = in_half and position not in _FP32_INPUTS.get(node.op_type, ())
            if name not in floats or node.op_type in _ANY_TYPE or wants_half == (name in halved):
                continue
            converted = f"{name}_{'fp16' if wants_half else 'fp32'}"
            if name in weights:
                copies.setdefault(converted, _round_weight(weights[name], converted))
            elif converted not in casts:
                casts.add(converted)
                nodes.append(_cast(name, converted, TensorProto.FLOAT16 if wants_half else TensorProto.FLOAT))
            node.input[position] = converted
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    kept = [weight for name, weight in weights.items() if name in used]
    del graph.initializer[:]
    graph.initializer.extend([*kept, *copies.values()])
    # They tell the types of before; whoever needs them infers them again.
    del graph.value_info[:]
    _save(model, target)


def half_engine(path: Path) -> Engine:
    """Return an engine that computes an fp16 file as a GPU does: every result in fp32, then rounded to fp16.

    Args:
        path: from `write_half`.

    Returns:
        The engine. It raises `VariantNotMade` when a probability is not a number.

    Raises:
        InvalidModel: ONNX Runtime cannot load it.
    """
    model = _with_rounding(read_graph(path))
    (probabilities,) = (node.input[0] for node in model.graph.node if OUTPUT_NAME in node.output)
    model.graph.output.append(helper.make_tensor_value_info(probabilities, TensorProto.FLOAT, None))
    session = open_session(model.SerializeToString())

    def run(images: UInt8Array) -> UInt8Array:
        levels, exact = run_session(session, [OUTPUT_NAME, probabilities], {INPUT_NAME: images})
        if not np.isfinite(exact).all():
            raise VariantNotMade("In fp16 the network's values leave the range of numbers: some are not a number.")
        array: UInt8Array = levels
        return array

    return run


def _halved_results(model: onnx.ModelProto, floats: set[str]) -> set[str]:
    """Return the results that are computed in fp16: from the first weighted operator up to the classifier.

    Only values are followed and not shapes: a size of 2049 pixels has no fp16.
    """
    closing = closing_values(model)
    halved: set[str] = set()
    for node in model.graph.node:
        begins = node.op_type in WEIGHTED or any(name in halved for name in node.input)
        if begins and node.op_type not in _FP32_OPERATORS and not closing.intersection(node.output):
            halved.update(name for name in node.output if name in floats)
    return halved


def _round_weight(weight: TensorProto, name: str) -> TensorProto:
    values = numpy_helper.to_array(weight)
    largest = float(np.abs(values).max(initial=0))
    if not largest <= _LARGEST:
        raise VariantNotMade(f"The weight {weight.name} reaches {largest:.4g}, and fp16 ends at {_LARGEST:.0f}.")
    return numpy_helper.from_array(values.astype(np.float16), name)


def _with_rounding(model: onnx.ModelProto) -> onnx.ModelProto:
    """Turn an fp16 graph into an fp32 one whose results are rounded to fp16, each as soon as it is there."""
    graph = model.graph
    halves = {value.name for value in graph.value_info if value.type.tensor_type.elem_type == TensorProto.FLOAT16}
    for weight in graph.initializer:
        if weight.data_type == TensorProto.FLOAT16:
            weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight).astype(np.float32), weight.name))
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        nodes.append(node)
        for position, name in enumerate(node.output):
            if name not in halves:
                continue
            rounded = f"{name}_rounded"
            if node.op_type == "Cast":
                node.output[position] = rounded
            else:
                exact = f"{name}_exact"
                node.output[position] = exact
                nodes.append(_cast(exact, rounded, TensorProto.FLOAT16))
            nodes.append(_cast(rounded, name, TensorProto.FLOAT))
    del graph.node[:]
    graph.node.extend(nodes)
    del graph.value_info[:]
    return model


def _cast(name: str, result: str, to: int) -> onnx.NodeProto:
    return helper.make_node("Cast", [name], [result], name=f"cast_{name}_to_{result}", to=to)


def _save(model: onnx.ModelProto, path: Path) -> None:
    try:
        onnx.save(model, path)
    except OSError as exc:
        raise VariantNotMade(f"The fp16 file could not be written: {exc.strerror or exc}.") from exc
