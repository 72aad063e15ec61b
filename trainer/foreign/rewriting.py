"""Turns the graph of a foreign model into one of the model contract: bytes in, bytes out, any number of images.

The graph around the foreign one is the very graph that the trainer's own export writes, operator by operator, so that
`trainer.plain` finds the same seams in both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from defectoscope.errors.models import ModelOutputNotLogits
from defectoscope.segmentation import INPUT_NAME, OUTPUT_NAME
from trainer.foreign.graph import OWN_PREFIX, constant, depend_on, free_names, makers, prune, rename
from trainer.foreign.signature import Signature

#: Mean and standard deviation of the ImageNet photographs, RGB, of values from 0 to 255. The same numbers stand in
#: `trainer.network`, which imports torch; a test holds them together.
MEAN = tuple(255 * value for value in (0.485, 0.456, 0.406))
STD = tuple(255 * value for value in (0.229, 0.224, 0.225))

#: What the last operator makes of the logits.
Tail = Literal["logits", "softmax", "sigmoid"]

_BATCH = "batch"
_TWO_CHANNELS = 2
#: Operators that move values or copy them and change none.
_CARRIERS = frozenset({"Identity", "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Cast", "Dropout"})
#: Operators at the end of a graph after which its values are no logits and cannot be made logits again.
_IRREVERSIBLE = frozenset(
    {"HardSigmoid", "Clip", "ArgMax", "Round", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"}
)


def find_tail(graph: GraphProto, output_name: str, *, channels: int) -> tuple[Tail, NodeProto | None]:
    """Tell whether a softmax or a sigmoid stands at the end of the graph, by its operators.

    A log-softmax counts as logits: the difference of its two channels is that of the logits.

    Returns:
        What the output is, and the operator that made logits into it.

    Raises:
        ModelOutputNotLogits: the output is neither logits nor a softmax of two channels or a sigmoid of one.
    """
    made_by = makers(graph)
    node = made_by.get(output_name)
    while node is not None and node.op_type in _CARRIERS and node.input[0] in made_by:
        node = made_by[node.input[0]]
    if node is None or node.op_type not in {"Softmax", "Sigmoid"} | _IRREVERSIBLE:
        return "logits", None
    if node.op_type == "Softmax" and channels == _TWO_CHANNELS:
        return "softmax", node
    if node.op_type == "Sigmoid" and channels == 1:
        return "sigmoid", node
    raise ModelOutputNotLogits(
        f"The model ends with {node.op_type} on {channels} channels, which cannot be undone; export the logits.",
        operator=node.op_type,
    )


def wrap_graph(model: ModelProto, signature: Signature, *, channels: int, activation: NodeProto | None) -> None:
    """Put the contract around a foreign graph.

    Args:
        model: changed in place; its input and output are then those of the contract.
        signature: of the foreign model.
        channels: of its output, 1 or 2.
        activation: the operator of the graph, if any, that is taken out to have logits.
    """
    graph = model.graph
    if activation is not None:
        activation.op_type = "Identity"
        activation.ClearField("attribute")
    # What was declared of shapes within was true of the old input.
    graph.ClearField("value_info")
    renamed = free_names(graph, (INPUT_NAME, OUTPUT_NAME))
    rename(
        graph,
        {
            renamed.get(signature.input_name, signature.input_name): _own("normalised"),
            renamed.get(signature.output_name, signature.output_name): _own("logits"),
        },
    )
    constants = _Constants(graph)
    if signature.batch is not None:
        _free_batch(graph, constants, batch=signature.batch)
    before = [
        helper.make_node("Transpose", [INPUT_NAME], [_own("channels_first")], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", [_own("channels_first")], [_own("float")], to=TensorProto.FLOAT),
        helper.make_node("Sub", [_own("float"), constants.add("mean", mean())], [_own("centred")]),
        helper.make_node("Mul", [_own("centred"), constants.add("scale", scale())], [_own("normalised")]),
    ]
    after: list[NodeProto] = []
    logits = _own("logits")
    if channels == 1:
        # A background of zero beside it: the sigmoid of one channel is the softmax of (0, x).
        after += [
            helper.make_node("Shape", [logits], [_own("logits_shape")]),
            helper.make_node("ConstantOfShape", [_own("logits_shape")], [_own("background_logits")]),
            helper.make_node("Concat", [_own("background_logits"), logits], [_own("both_logits")], axis=1),
        ]
        logits = _own("both_logits")
    zero, one = (constants.add(f"channel_{index}", np.array(index, dtype=np.int64)) for index in (0, 1))
    after += [
        helper.make_node("Gather", [logits, one], [_own("defect_logit")], axis=1),
        helper.make_node("Gather", [logits, zero], [_own("background_logit")], axis=1),
        helper.make_node("Sub", [_own("defect_logit"), _own("background_logit")], [_own("difference")]),
        helper.make_node("Sigmoid", [_own("difference")], [_own("probability")]),
        helper.make_node(
            "Mul", [_own("probability"), constants.add("white", np.array(255, dtype=np.float32))], [_own("level")]
        ),
        helper.make_node("Round", [_own("level")], [_own("rounded")]),
        helper.make_node("Cast", [_own("rounded")], [OUTPUT_NAME], to=TensorProto.UINT8),
    ]
    width, height = signature.size_wh
    _surround(graph, before, after)
    graph.ClearField("input")
    graph.input.append(helper.make_tensor_value_info(INPUT_NAME, TensorProto.UINT8, [_BATCH, height, width, 3]))
    graph.ClearField("output")
    graph.output.append(helper.make_tensor_value_info(OUTPUT_NAME, TensorProto.UINT8, [_BATCH, height, width]))
    prune(graph)


def mean() -> npt.NDArray[np.float32]:
    """Return the mean as (1, 3, 1, 1)."""
    return np.array(MEAN, dtype=np.float32).reshape(1, 3, 1, 1)


def scale() -> npt.NDArray[np.float32]:
    """Return one over the standard deviation as (1, 3, 1, 1)."""
    return np.float32(1) / np.array(STD, dtype=np.float32).reshape(1, 3, 1, 1)


def _own(name: str) -> str:
    return OWN_PREFIX + name


class _Constants:
    """Adds constants to a graph under names of our own."""

    def __init__(self, graph: GraphProto) -> None:
        self._graph = graph

    def add(self, name: str, value: npt.NDArray[np.generic]) -> str:
        self._graph.initializer.append(numpy_helper.from_array(value, _own(name)))
        return _own(name)


def _surround(graph: GraphProto, before: Sequence[NodeProto], after: Sequence[NodeProto]) -> None:
    inside = [NodeProto.FromString(node.SerializeToString()) for node in graph.node]
    graph.ClearField("node")
    graph.node.extend([*before, *inside, *after])


def _free_batch(graph: GraphProto, constants: _Constants, *, batch: int) -> None:
    """Replace the batch in the sizes that the file gives as constants by the batch of the input.

    An exporter that was shown one image writes its 1 into the sizes of Reshape and Resize. Which of them means the
    batch is a guess here: a first number that equals it, for a value that follows from the image. The proof decides.
    """
    from_image = depend_on(graph, _own("normalised"))
    sizes_nodes: list[NodeProto] = []
    for number, node in enumerate(graph.node):
        position = {"Reshape": 1, "Resize": 3}.get(node.op_type)
        if position is None or len(node.input) <= position or node.input[0] not in from_image:
            continue
        sizes = constant(graph, node.input[position])
        if sizes is None or sizes.ndim != 1 or sizes.size == 0 or int(sizes[0]) != batch:
            continue
        rest = constants.add(f"sizes_{number}_rest", sizes[1:].astype(np.int64))
        sizes_nodes.append(helper.make_node("Concat", [_own("batch"), rest], [_own(f"sizes_{number}")], axis=0))
        node.input[position] = _own(f"sizes_{number}")
    if sizes_nodes:
        start, end = (constants.add(name, np.array([at], dtype=np.int64)) for name, at in (("start", 0), ("end", 1)))
        shape = helper.make_node("Shape", [_own("normalised")], [_own("shape")])
        of_batch = helper.make_node("Slice", [_own("shape"), start, end], [_own("batch")])
        _surround(graph, [shape, of_batch, *sizes_nodes], [])
