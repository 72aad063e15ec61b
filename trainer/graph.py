"""What the writers of fp16 and int8 files must know of an ONNX graph: its weighted operators and the way to its output.

The classifier and all that follows it (enlarging, sigmoid, rounding to bytes) stay fp32 in every variant: they cost
next to nothing, and an error made there goes into the mask undamped.
"""

from __future__ import annotations

from pathlib import Path

import onnx

from defectoscope.errors.training import VariantNotMade

#: Operators that hold nearly all of a network's weights and arithmetic.
WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
#: What onnx raises about a graph.
GRAPH_ERRORS = (onnx.checker.ValidationError, onnx.shape_inference.InferenceError)


def read_graph(path: Path) -> onnx.ModelProto:
    """Load a model with the type of every value in it.

    Raises:
        VariantNotMade: the types cannot be told.
    """
    try:
        return onnx.shape_inference.infer_shapes(onnx.load(path), strict_mode=True, data_prop=True)
    except GRAPH_ERRORS as exc:
        raise VariantNotMade(f"The types of the fp32 file's values cannot be told: {first_line(exc)}") from exc


def float_values(model: onnx.ModelProto) -> set[str]:
    """Return the names of all fp32 values: inputs, weights, results."""
    graph = model.graph
    typed = (*graph.input, *graph.output, *graph.value_info)
    return {value.name for value in typed if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT} | {
        weight.name for weight in graph.initializer if weight.data_type == onnx.TensorProto.FLOAT
    }


def closing_values(model: onnx.ModelProto) -> set[str]:
    """Return the names of what the classifier gives and of all results after it, up to the output.

    Args:
        model: any network; its classifier is the weighted operator nearest to the output.
    """
    producers = {name: node for node in model.graph.node for name in node.output}
    found: set[str] = set()
    waiting = [value.name for value in model.graph.output]
    while waiting:
        node = producers.get(waiting.pop())
        if node is None or node.output[0] in found:
            continue
        found.update(node.output)
        if node.op_type not in WEIGHTED:
            waiting += node.input
    return found


def first_line(error: Exception) -> str:
    """Return what a library says first; what follows is for its authors."""
    return str(error).strip().partition("\n")[0]
