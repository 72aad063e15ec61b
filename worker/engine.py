"""ONNX Runtime as the engine: one session for each model file, shared by all threads of the process."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from time import perf_counter
from typing import Literal

import onnxruntime
import structlog
from onnxruntime.capi import onnxruntime_pybind11_state as _state

from defectoscope.errors import EngineFailed, InvalidModel, ProviderUnavailable
from defectoscope.segmentation import INPUT_NAME, OUTPUT_NAME, ModelContract, UInt8Array

log = structlog.get_logger(__name__)

Device = Literal["auto", "cpu", "cuda"]

#: What ONNX Runtime raises; its exceptions share no base of their own.
_RUNTIME_ERRORS = (
    _state.EPFail,
    _state.Fail,
    _state.InvalidArgument,
    _state.InvalidGraph,
    _state.InvalidProtobuf,
    _state.NoSuchFile,
    _state.NotImplemented,
    _state.RuntimeException,
    RuntimeError,
    ValueError,
)

#: Those that speak of the file and not of the machine.
_FILE_ERRORS = (_state.InvalidGraph, _state.InvalidProtobuf, _state.NoSuchFile, _state.NotImplemented)

_CPU = "CPUExecutionProvider"
_CUDA = "CUDAExecutionProvider"


def available_threads() -> int:
    """Return the cores this process may use; ONNX Runtime by itself counts the host's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """Where and how to run: ``auto`` takes a usable GPU and otherwise the CPU; 0 threads means one for each core."""

    device: Device = "auto"
    intra_op_threads: int = 0


class OnnxEngine:
    """Calls one model: (N, H, W, 3) uint8 RGB in, (N, H, W) uint8 out, 255 = certain defect."""

    def __init__(self, path: Path, *, options: EngineOptions) -> None:
        """Load a model file and check that it keeps the contract.

        Args:
            path: the ONNX file.
            options: device and threads.

        Raises:
            InvalidModel: not an ONNX file, or without the contract's metadata, input or output.
            ProviderUnavailable: CUDA was demanded and cannot be used.
        """
        self._session = _open_session(path, options)
        self.provider: str = self._session.get_providers()[0]
        self.runtime_version: str = onnxruntime.__version__
        self.contract = ModelContract.from_metadata(self._session.get_modelmeta().custom_metadata_map)
        _check_signature(self._session, self.contract)
        # One model call at a time: it uses every core (or the one GPU) by itself, two would only share them.
        self._lane = Lock()

    def __call__(self, images: UInt8Array) -> UInt8Array:
        """Run the model: the `Engine` of `defectoscope.segmentation`."""
        return self.run(images)[0]

    def run(self, images: UInt8Array) -> tuple[UInt8Array, float]:
        """Run the model and time it.

        Args:
            images: (N, H, W, 3) uint8 RGB of the contract's input size.

        Returns:
            (N, H, W) uint8 defect probabilities, 255 = 1.0, and the seconds the call took once it had its turn.

        Raises:
            EngineFailed: the runtime refused or failed.
        """
        with self._lane:
            started = perf_counter()
            try:
                (probabilities,) = self._session.run([OUTPUT_NAME], {INPUT_NAME: images})
            except _RUNTIME_ERRORS as exc:
                raise EngineFailed(f"ONNX Runtime could not run the model: {exc}") from exc
            return probabilities, perf_counter() - started


def check_device(device: Device) -> str:
    """Return the execution provider that this process will use.

    Raises:
        ProviderUnavailable: CUDA is demanded and cannot be used.
    """
    if device == "cpu":
        return _CPU
    usable = _CUDA in onnxruntime.get_available_providers() and _has_gpu()
    if device == "cuda" and not usable:
        raise ProviderUnavailable(
            "DEFECTOSCOPE_WORKER__DEVICE is cuda, but no CUDA device can be used here; "
            "install the NVIDIA driver and onnxruntime-gpu, or set it to auto or cpu."
        )
    return _CUDA if usable else _CPU


def _has_gpu() -> bool:
    """Return whether the driver shows a device.

    The list of available providers is what the package was built with, not what this machine can run: onnxruntime-gpu
    names CUDA everywhere and falls back to the CPU without an error.
    """
    devices = onnxruntime.get_ep_devices() if hasattr(onnxruntime, "get_ep_devices") else []
    return Path("/dev/nvidiactl").exists() or any(device.ep_name == _CUDA for device in devices)


def _has_vnni() -> bool:
    """Return whether the processor is known to multiply bytes and add the products in 32 bits."""
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "avx512_vnni" in flags or "avx_vnni" in flags


def _open_session(path: Path, options: EngineOptions) -> onnxruntime.InferenceSession:
    provider = check_device(options.device)
    session_options = onnxruntime.SessionOptions()
    session_options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    session_options.log_severity_level = 3
    # Spinning threads burn the cores that decoding needs between two calls.
    session_options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if not _has_vnni():
        # Without these instructions products of bytes are added in 16 bits and overflow without a word, unless a way is
        # asked for that halves the speed of int8 everywhere.
        session_options.add_session_config_entry("session.x64quantprecision", "1")
    session_options.intra_op_num_threads = 1 if provider == _CUDA else options.intra_op_threads or available_threads()
    if provider == _CUDA and hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()
    try:
        session = onnxruntime.InferenceSession(
            path,
            session_options,
            providers=[provider] if provider == _CPU else [provider, _CPU],
            # Otherwise the constructor answers a CUDA failure by silently running on the CPU.
            enable_fallback=0 if options.device == "cuda" else 1,
        )
    except _RUNTIME_ERRORS as exc:
        if provider == _CUDA and not isinstance(exc, _FILE_ERRORS):
            raise ProviderUnavailable(f"The model could not be loaded on the GPU: {exc}") from exc
        raise InvalidModel(f"{path.name} is not a usable ONNX model: {exc}") from exc
    actual = session.get_providers()[0]
    if options.device == "cuda" and actual != _CUDA:
        raise ProviderUnavailable(f"CUDA was demanded but ONNX Runtime runs on {actual}.")
    if provider == _CUDA and actual != _CUDA:
        log.warning("engine.fallback", wanted=provider, actual=actual)
    return session


def _check_signature(session: onnxruntime.InferenceSession, contract: ModelContract) -> None:
    inputs = [(node.name, node.type, node.shape[1:]) for node in session.get_inputs()]
    outputs = [(node.name, node.type, node.shape[1:]) for node in session.get_outputs()]
    width, height = contract.input_size_wh
    if inputs != [(INPUT_NAME, "tensor(uint8)", [height, width, 3])]:
        raise InvalidModel(f"The model's input is {inputs}, not {INPUT_NAME} uint8 (N, {height}, {width}, 3).")
    if any(isinstance(node.shape[0], int) for node in (*session.get_inputs(), *session.get_outputs())):
        raise InvalidModel("The model's batch size is fixed; the contract demands any number of images.")
    if outputs != [(OUTPUT_NAME, "tensor(uint8)", [height, width])]:
        raise InvalidModel(f"The model's output is {outputs}, not {OUTPUT_NAME} uint8 (N, {height}, {width}).")
