"""Where the model runs: cores, the graphics card, and ONNX Runtime sessions that never run elsewhere unseen."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import onnxruntime
import structlog
from onnxruntime.capi import onnxruntime_pybind11_state as _state

from defectoscope.errors.engine import ProviderUnavailable
from defectoscope.errors.models import InvalidModel

log = structlog.get_logger(__name__)

Device = Literal["auto", "cpu", "cuda", "tensorrt"]

#: What ONNX Runtime raises; its exceptions share no base of their own.
RUNTIME_ERRORS = (
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

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"
_PROVIDER_OF: dict[Device, str] = {"cpu": CPU, "cuda": CUDA, "tensorrt": TENSORRT}


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """Where and how to run.

    Attributes:
        device: ``auto`` takes a usable GPU and otherwise the CPU; any other is demanded.
        device_id: which GPU of those that the process may see.
        intra_op_threads: threads of one call on the CPU; 0 means one for each core.
        batch_size: the most images in one call.
        memory_limit_bytes: of ONNX Runtime's arena on the GPU; 0 means no limit.
        engine_cache_dir: where TensorRT keeps the engines it built, which takes minutes; None keeps none.
    """

    device: Device = "auto"
    device_id: int = 0
    intra_op_threads: int = 0
    batch_size: int = 8
    memory_limit_bytes: int = 0
    engine_cache_dir: Path | None = None


def available_threads(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Return the cores this process may use; ONNX Runtime by itself counts the host's.

    Args:
        cgroup: where the kernel shows the limits of this process's container (cgroup 2).
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
    except (OSError, ValueError):
        return cores
    # A share of a core is a thread as well: half a core is better used by one thread than by none.
    return cores if quota == "max" else max(1, min(cores, math.ceil(int(quota) / int(period))))


def check_device(device: Device) -> str:
    """Return the execution provider that this process will use.

    Raises:
        ProviderUnavailable: a GPU is demanded and cannot be used.
    """
    if device == "cpu":
        return CPU
    wanted = _PROVIDER_OF.get(device, CUDA)
    usable = wanted in onnxruntime.get_available_providers() and _has_gpu()
    if device != "auto" and not usable:
        raise ProviderUnavailable(
            f"DEFECTOSCOPE_WORKER__DEVICE is {device}, but no CUDA device can be used here; "
            "install the NVIDIA driver and onnxruntime-gpu, or set it to auto or cpu."
        )
    return wanted if usable else CPU


def _has_gpu() -> bool:
    """Return whether the driver shows a device.

    The list of available providers is what the package was built with, not what this machine can run: onnxruntime-gpu
    names CUDA everywhere and falls back to the CPU without an error.
    """
    devices = onnxruntime.get_ep_devices() if hasattr(onnxruntime, "get_ep_devices") else []
    return Path("/dev/nvidiactl").exists() or any(device.ep_name == CUDA for device in devices)


def has_vnni() -> bool:
    """Return whether the processor is known to multiply bytes and add the products in 32 bits."""
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "avx512_vnni" in flags or "avx_vnni" in flags


def open_session(path: Path, options: EngineOptions) -> onnxruntime.InferenceSession:
    """Load a model file.

    Raises:
        InvalidModel: it is not an ONNX file that can be run.
        ProviderUnavailable: a GPU was demanded, or is there, and the model cannot be loaded on it.
    """
    provider = check_device(options.device)
    if provider != CPU and hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()
    try:
        session = onnxruntime.InferenceSession(
            path,
            _session_options(provider, options),
            providers=_providers(provider, options),
            # Otherwise the constructor answers a CUDA failure by silently running on the CPU.
            enable_fallback=1 if options.device == "auto" else 0,
        )
    except RUNTIME_ERRORS as exc:
        if provider != CPU and not isinstance(exc, _FILE_ERRORS):
            raise ProviderUnavailable(f"The model could not be loaded on the GPU: {exc}") from exc
        raise InvalidModel(f"{path.name} is not a usable ONNX model: {exc}") from exc
    actual = session.get_providers()[0]
    if options.device in {"cuda", "tensorrt"} and actual != provider:
        raise ProviderUnavailable(f"{options.device} was demanded but ONNX Runtime runs on {actual}.")
    if actual != provider:
        log.warning("engine.fallback", wanted=provider, actual=actual)
    return session


def _session_options(provider: str, options: EngineOptions) -> onnxruntime.SessionOptions:
    chosen = onnxruntime.SessionOptions()
    chosen.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    chosen.log_severity_level = 3
    # Spinning threads burn the cores that decoding needs between two calls.
    chosen.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if not has_vnni():
        # Without these instructions products of bytes are added in 16 bits and overflow without a word, unless a way is
        # asked for that halves the speed of int8 everywhere.
        chosen.add_session_config_entry("session.x64quantprecision", "1")
    chosen.intra_op_num_threads = options.intra_op_threads or available_threads() if provider == CPU else 1
    return chosen


def _providers(provider: str, options: EngineOptions) -> list[str | tuple[str, dict[str, Any]]]:
    if provider == CPU:
        return [CPU]
    cuda: dict[str, Any] = {
        "device_id": options.device_id,
        # Input shapes are few and fixed, so that the search is paid once for each.
        "cudnn_conv_algo_search": "EXHAUSTIVE",
        "cudnn_conv_use_max_workspace": "1",
        "arena_extend_strategy": "kSameAsRequested",
    }
    if options.memory_limit_bytes:
        cuda["gpu_mem_limit"] = options.memory_limit_bytes
    if provider == CUDA:
        return [(CUDA, cuda), CPU]
    tensorrt: dict[str, Any] = {"device_id": options.device_id, "trt_fp16_enable": True}
    if options.engine_cache_dir is not None:
        cache = str(options.engine_cache_dir)
        tensorrt |= {
            "trt_engine_cache_enable": True,
            "trt_engine_cache_path": cache,
            "trt_timing_cache_enable": True,
            "trt_timing_cache_path": cache,
        }
    return [(TENSORRT, tensorrt), (CUDA, cuda), CPU]
