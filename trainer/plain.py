"""Turns a served model back into the plain ONNX file that a notebook exports: normalised floats in, logits out.

The graph is cut where the image has been normalised and where the logits of both classes come together. Both seams are
found by what the operators do, not by their names, so that files of the trainer and wrapped foreign files are the same
here; and the plain file is run against the served one before it is kept. A foreign model of one channel comes back with
two, the first of them zero, which means the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper

from defectoscope.errors.models import PlainExportRefused
from defectoscope.segmentation import INPUT_NAME, OUTPUT_NAME, ModelContract, find_lowest_level
from trainer.foreign.graph import constant, free_names, makers, prune, rename, standard_opset
from trainer.foreign.limits import FileLimits
from trainer.foreign.prove import Proof, draw_images, exact_levels, prove, run_float
from trainer.foreign.reading import read_model
from trainer.foreign.rewriting import MEAN, STD
from trainer.foreign.session import open_model

#: The name that the notebook gave its file.
PLAIN_FILE_NAME = "deeplabv3_plus_model.onnx"

PLAIN_INPUT = "input"
PLAIN_OUTPUT = "output"

_BATCH = "batch"
_CLASSES = 2
_CHANNELS_FIRST = [0, 3, 1, 2]
_QUANTISED = frozenset({"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "ConvInteger"})
_HALF = frozenset({TensorProto.FLOAT16, TensorProto.BFLOAT16})

#: What an operator with a constant beside the value does to scale and offset of ``scale * image + offset``.
_AFFINE: dict[str, Callable[[Any, Any, Any], tuple[Any, Any]]] = {
    "Sub": lambda scale, offset, value: (scale, offset - value),
    "Add": lambda scale, offset, value: (scale, offset + value),
    "Mul": lambda scale, offset, value: (scale * value, offset * value),
    "Div": lambda scale, offset, value: (scale / value, offset / value),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainReport:
    """A plain file and the proof that it gives what the served one gives."""

    path: Path
    opset: int
    proof: Proof

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON-ready values."""
        return {"path": str(self.path), "opset": self.opset, "proof": self.proof.to_json()}


def to_plain(served_path: Path, out: Path) -> PlainReport:
    """Write a served model as a plain ONNX file.

    Args:
        served_path: an fp32 file of the model contract.
        out: the file to write, or a directory, in which it is called `PLAIN_FILE_NAME`. Its input is ``input``, float32
            (N, 3, H, W) RGB normalised by the statistics of ImageNet; its output is ``output``, float32 (N, 2, H, W)
            logits with the defect second. The facts of the contract are not in it: they would be untrue of it.

    Raises:
        PlainExportRefused: the file is not fp32, or its seams cannot be found.
        InvalidModel: it does not keep the contract, or the plain file does not give the same masks.
    """
    model = read_model(served_path, limits=FileLimits())
    contract = ModelContract.from_metadata({prop.key: prop.value for prop in model.metadata_props})
    _demand_fp32(model.graph)
    served = open_model(model)
    _cut(model, size_wh=contract.input_size_wh)
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as exc:
        raise PlainExportRefused(f"What lies between normalisation and sigmoid does not stand alone: {exc}") from exc
    plain = open_model(model)
    images = draw_images(contract.input_size_wh)
    expected = [exact_levels(run_float(plain, image, batch=None), tail="logits") for image in images]
    proof = prove(images, expected, served=served, lowest_level=find_lowest_level(contract.threshold))
    path = out / PLAIN_FILE_NAME if out.is_dir() else out
    path.write_bytes(model.SerializeToString())
    return PlainReport(path=path, opset=standard_opset(model), proof=proof)


def _demand_fp32(graph: GraphProto) -> None:
    if any(node.op_type in _QUANTISED for node in graph.node) or any(
        tensor.data_type in _HALF for tensor in graph.initializer
    ):
        raise PlainExportRefused("This is not an fp32 model; export the fp32 variant of this version.")


def _cut(model: ModelProto, *, size_wh: tuple[int, int]) -> None:
    """Leave what lies between the seams, with the input and output of a plain file."""
    graph = model.graph
    free_names(graph, (PLAIN_INPUT, PLAIN_OUTPUT))
    normalised, passed = _find_normalised(graph)
    logits = _find_logits(graph)
    for node in graph.node:
        if node.op_type == "Shape" and node.input[0] in passed:
            if not (passed[node.input[0]] or _asks_for_batch(node)):
                raise PlainExportRefused("The model asks for the size of its image before it is normalised.")
            node.input[0] = normalised
    made_by = makers(graph)
    graph.node.remove(made_by[normalised])
    rename(graph, {normalised: PLAIN_INPUT, logits: PLAIN_OUTPUT})
    width, height = size_wh
    for field in ("input", "output", "value_info"):
        graph.ClearField(field)
    graph.input.append(helper.make_tensor_value_info(PLAIN_INPUT, TensorProto.FLOAT, [_BATCH, 3, height, width]))
    graph.output.append(
        helper.make_tensor_value_info(PLAIN_OUTPUT, TensorProto.FLOAT, [_BATCH, _CLASSES, height, width])
    )
    prune(graph)
    model.ClearField("metadata_props")


def _find_normalised(graph: GraphProto) -> tuple[str, dict[str, bool]]:
    """Follow the image until it is (N, 3, H, W) float and normalised.

    Returns:
        The value that is, and those on the way there, each with whether its channels came first already.
    """
    value, scale, offset = INPUT_NAME, np.ones(3), np.zeros(3)
    is_float = is_channels_first = False
    passed: dict[str, bool] = {}
    wanted_scale, wanted_offset = 1 / np.array(STD), -np.array(MEAN) / np.array(STD)
    while not (
        is_float
        and is_channels_first
        and np.allclose(scale, wanted_scale, rtol=1e-5)
        and np.allclose(offset, wanted_offset, rtol=1e-5)
    ):
        users = [node for node in graph.node if value in node.input and node.op_type != "Shape"]
        if len(users) != 1:
            raise PlainExportRefused
        (node,) = users
        passed[value] = is_channels_first
        if node.op_type == "Cast" and _attribute(node, "to") == TensorProto.FLOAT:
            is_float = True
        elif node.op_type == "Transpose" and _attribute(node, "perm") == _CHANNELS_FIRST:
            is_channels_first = True
        elif node.op_type in _AFFINE and node.input[0] == value:
            scale, offset = _AFFINE[node.op_type](scale, offset, _per_channel(graph, node.input[1]))
        else:
            raise PlainExportRefused
        value = node.output[0]
    return value, passed


def _find_logits(graph: GraphProto) -> str:
    """Follow the result back through rounding and sigmoid to the value whose two channels are subtracted."""
    made_by = makers(graph)

    def step(name: str, op_type: str) -> NodeProto:
        node = made_by.get(name)
        if node is None or node.op_type != op_type:
            raise PlainExportRefused
        return node

    level = step(step(step(OUTPUT_NAME, "Cast").input[0], "Round").input[0], "Mul")
    white = constant(graph, level.input[1])
    if white is None or white.size != 1 or white.item() != 255:  # noqa: PLR2004 -- the largest uint8
        raise PlainExportRefused
    difference = step(step(level.input[0], "Sigmoid").input[0], "Sub")
    sources = []
    for name, channel in zip(difference.input, (1, 0), strict=True):
        gather = step(name, "Gather")
        index = constant(graph, gather.input[1])
        if _attribute(gather, "axis") != 1 or index is None or index.ndim or index.item() != channel:
            raise PlainExportRefused
        sources.append(gather.input[0])
    if sources[0] != sources[1]:
        raise PlainExportRefused
    return str(sources[0])


def _per_channel(graph: GraphProto, name: str) -> npt.NDArray[np.float64]:
    value = constant(graph, name)
    if value is None or value.size not in {1, 3}:
        raise PlainExportRefused
    return np.asarray(value, dtype=np.float64).reshape(-1)


def _attribute(node: NodeProto, name: str) -> Any:
    for attribute in node.attribute:
        if attribute.name == name:
            return helper.get_attribute_value(attribute)
    return None


def _asks_for_batch(node: NodeProto) -> bool:
    return (_attribute(node, "start") or 0, _attribute(node, "end")) == (0, 1)
