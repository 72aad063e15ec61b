"""ONNX Runtime as the trainer's judge: the very file that is published, on the CPU.

Always on the CPU, also where training has a GPU: fp32 on a GPU may be computed in TF32, and the figures of two trainers
would then differ by their hardware.
"""

from __future__ import annotations

from pathlib import Path

import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as failures

from defectoscope.errors import InvalidModel
from defectoscope.segmentation import INPUT_NAME, OUTPUT_NAME, Engine, ModelContract, UInt8Array
from trainer.hardware import available_cores

_ERRORS_ONLY = 3
_LOAD_FAILURES = (
    failures.Fail,
    failures.InvalidGraph,
    failures.InvalidProtobuf,
    failures.NotImplemented,
    failures.NoSuchFile,
)


def onnx_engine(path: Path) -> Engine:
    """Load a model file and return an engine that runs it.

    Raises:
        InvalidModel: ONNX Runtime cannot load it.
    """
    session = _open(path)

    def run(images: UInt8Array) -> UInt8Array:
        array: UInt8Array = session.run([OUTPUT_NAME], {INPUT_NAME: images})[0]
        return array

    return run


def read_contract(path: Path) -> ModelContract:
    """Load a model file and return the contract inside, which proves that both can be read.

    Raises:
        InvalidModel: ONNX Runtime cannot load it, or it carries no contract.
    """
    return ModelContract.from_metadata(_open(path).get_modelmeta().custom_metadata_map)


def _open(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = available_cores()
    options.log_severity_level = _ERRORS_ONLY
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except _LOAD_FAILURES as exc:
        raise InvalidModel(f"ONNX Runtime cannot load the model: {exc}") from exc
