"""ONNX Runtime as the judge of models that come from elsewhere: on the CPU, from bytes, its failures by name."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
from onnx import ModelProto
from onnxruntime.capi import onnxruntime_pybind11_state as failures

from defectoscope.errors.models import ModelNotRunnable, ModelTooLarge

#: Runs a model on one array; what type comes out is the model's affair, and checked where it matters.
Run = Callable[[npt.NDArray[Any]], npt.NDArray[Any]]

_FATAL_ONLY = 4
#: What ONNX Runtime raises; its exceptions share no base of their own.
_FAILURES = (
    failures.EPFail,
    failures.Fail,
    failures.InvalidArgument,
    failures.InvalidGraph,
    failures.InvalidProtobuf,
    failures.NotImplemented,
    failures.RuntimeException,
    RuntimeError,
    ValueError,
    MemoryError,
)
#: Its words for memory that the system does not give.
_OUT_OF_MEMORY = ("bad_alloc", "allocate memory", "bad allocation")


def open_model(model: ModelProto) -> Run:
    """Load a model of one input and one output, and return what runs it.

    Raises:
        ModelNotRunnable: ONNX Runtime cannot load it; the returned function raises the same when it cannot run it.
        ModelTooLarge: there is not enough memory for it.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
    options.log_severity_level = _FATAL_ONLY
    try:
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"], enable_fallback=0
        )
    except _FAILURES as exc:
        raise _translate(exc, "load") from exc
    (taken,) = session.get_inputs()
    (given,) = session.get_outputs()

    def run(batch: npt.NDArray[Any]) -> npt.NDArray[Any]:
        try:
            (output,) = session.run([given.name], {taken.name: batch})
        except _FAILURES as exc:
            raise _translate(exc, "run") from exc
        return np.asarray(output)

    return run


def _translate(exc: Exception, verb: str) -> ModelNotRunnable | ModelTooLarge:
    text = str(exc)
    if isinstance(exc, MemoryError) or any(words in text for words in _OUT_OF_MEMORY):
        return ModelTooLarge(f"There is not enough memory to {verb} the model.")
    return ModelNotRunnable(f"ONNX Runtime cannot {verb} the model: {text.strip().partition(chr(10))[0]}")
