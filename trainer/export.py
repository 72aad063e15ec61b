"""Writes a trained network as one ONNX file that keeps the model contract, and stamps contracts into such files.

Height and width are fixed, only the batch is dynamic: shapes that change defeat the engines' planning. The graph stays
as torch gives it; folding and fusing is the business of ONNX Runtime.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
import torch
from torch import nn

from defectoscope.errors.training import TrainingFailed
from defectoscope.segmentation import INPUT_NAME, OUTPUT_NAME, ModelContract
from trainer.served import ServedNetwork

#: The opset torch's exporter writes without conversion; every ONNX Runtime of the last years reads it.
OPSET = 18
_BATCH = "batch"


def export_onnx(network: nn.Module, *, contract: ModelContract, path: Path) -> None:
    """Export a network behind the model contract.

    Args:
        network: normalised (N, 3, h, w) float32 to (N, 2, h, w) logits; on the CPU, in eval mode afterwards.
        contract: gives the input size; written into the file.
        path: the file to write.

    Raises:
        TrainingFailed: the network cannot be exported, or its batch is not dynamic in the file.
    """
    width, height = contract.input_size_wh
    # An example batch of one would be taken for a constant of the graph.
    example = torch.zeros((2, height, width, 3), dtype=torch.uint8)
    served = ServedNetwork(network).eval()
    with _quiet_exporter():
        try:
            program = torch.onnx.export(
                served,
                (example,),
                dynamo=True,
                input_names=[INPUT_NAME],
                output_names=[OUTPUT_NAME],
                dynamic_shapes=({0: torch.export.Dim(_BATCH, min=1)},),
                opset_version=OPSET,
                external_data=False,
                verbose=False,
            )
        except (torch.onnx.errors.OnnxExporterError, RuntimeError) as exc:
            first = str(exc).partition("\n")[0]
            raise TrainingFailed(f"The network cannot be exported to ONNX: {first}") from exc
    if program is None:
        raise TrainingFailed("The network cannot be exported to ONNX: the exporter returned nothing.")
    program.save(path, external_data=False)
    stamp(path, contract)


def stamp(path: Path, contract: ModelContract) -> None:
    """Write a contract into the metadata of an ONNX file, in place of an earlier one, and check the file.

    Raises:
        TrainingFailed: the file is not a valid model, or not one with a dynamic batch and fixed sides.
    """
    model = onnx.load(path)
    kept = {prop.key: prop.value for prop in model.metadata_props}
    model.ClearField("metadata_props")
    onnx.helper.set_model_props(model, {**kept, **contract.to_metadata()})
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as exc:
        raise TrainingFailed(f"The exported model is not valid ONNX: {exc}") from exc
    width, height = contract.input_size_wh
    _demand_shape(model.graph.input, INPUT_NAME, (height, width, 3))
    _demand_shape(model.graph.output, OUTPUT_NAME, (height, width))
    onnx.save(model, path)


def _demand_shape(values: object, name: str, fixed: tuple[int, ...]) -> None:
    """Demand a single uint8 value of this name, dynamic in its first dimension and fixed in the others."""
    found = [
        (value.name, value.type.tensor_type.elem_type, value.type.tensor_type.shape.dim)
        for value in values  # type: ignore[attr-defined]  # a protobuf container
    ]
    if len(found) == 1 and found[0][:2] == (name, onnx.TensorProto.UINT8):
        batch, *others = found[0][2]
        if batch.dim_param and tuple(dim.dim_value for dim in others) == fixed:
            return
    raise TrainingFailed(f"The exported model has no {name} of (batch, {', '.join(map(str, fixed))}) uint8.")


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Keep the exporter's progress and its warnings about its own insides to itself."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            # Deprecations inside torch and onnxscript, which only their authors can act on.
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
