"""ONNX Runtime as the trainer's judge: the very file that is published, on the CPU.

Always on the CPU, also where training has a GPU: fp32 on a GPU may be computed in TF32, and the figures of two trainers
would then differ by their hardware.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as failures

from defectoscope.errors.engine import EngineFailed
from defectoscope.errors.models import InvalidModel
from defectoscope.segmentation import INPUT_NAME, OUTPUT_NAME, Engine, ModelContract, UInt8Array
from trainer.hardware import available_cores

_ERRORS_ONLY = 3
#: What ONNX Runtime raises; its exceptions share no base of their own.
RUNTIME_ERRORS = (
    failures.EPFail,
    failures.Fail,
    failures.InvalidArgument,
    failures.InvalidGraph,
    failures.InvalidProtobuf,
    failures.NoSuchFile,
    failures.NotImplemented,
    failures.RuntimeException,
)


def onnx_engine(path: Path) -> Engine:
    """Load a model file and return an engine that runs it.

    Returns:
        The engine; it raises `EngineFailed` when ONNX Runtime cannot compute.

    Raises:
        InvalidModel: ONNX Runtime cannot load it.
    """
    session = open_session(path)

    def run(images: UInt8Array) -> UInt8Array:
        array: UInt8Array = run_session(session, [OUTPUT_NAME], {INPUT_NAME: images})[0]
        return array

    return run


def read_contract(path: Path) -> ModelContract:
    """Load a model file and return the contract inside, which proves that both can be read.

    Raises:
        InvalidModel: ONNX Runtime cannot load it, or it carries no contract.
    """
    return ModelContract.from_metadata(open_session(path).get_modelmeta().custom_metadata_map)


def open_session(model: Path | bytes) -> onnxruntime.InferenceSession:
    """Load a model, from a file or from its bytes.

    Raises:
        InvalidModel: ONNX Runtime cannot load it.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = available_cores()
    options.log_severity_level = _ERRORS_ONLY
    # Processors without VNNI add products of bytes in 16 bits, which overflow without a word. This way does not; it
    # halves the speed of int8, also on processors that need it not, and a judge may be slow.
    options.add_session_config_entry("session.x64quantprecision", "1")
    source = model if isinstance(model, bytes) else str(model)
    try:
        return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except RUNTIME_ERRORS as exc:
        raise InvalidModel(f"ONNX Runtime cannot load the model: {exc}") from exc


def run_session(
    session: onnxruntime.InferenceSession, outputs: Sequence[str], inputs: dict[str, UInt8Array]
) -> list[Any]:
    """Compute.

    Returns:
        One array for each name in ``outputs``, in order.

    Raises:
        EngineFailed: ONNX Runtime cannot.
    """
    try:
        found: list[Any] = session.run(list(outputs), inputs)
    except RUNTIME_ERRORS as exc:
        raise EngineFailed(f"ONNX Runtime could not run the model: {exc}") from exc
    return found
