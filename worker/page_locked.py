"""Memory between the worker and a GPU: page-locked, so that the card reads and writes it without a copy in between.

ONNX Runtime takes arrays where they lie; CUDA knows by the address which of them are locked.
"""

from __future__ import annotations

import ctypes
import math
import mmap
import weakref

import numpy as np
import onnxruntime
import structlog

from defectoscope.segmentation import UInt8Array

log = structlog.get_logger(__name__)

#: cudaHostRegisterPortable: locked for every context, whichever thread asked for it.
_PORTABLE = 1


def allocate(shape: tuple[int, ...], *, device_id: int | None) -> UInt8Array:
    """Return zeros that a GPU can reach by itself.

    Where CUDA refuses, they are ordinary memory: everything works, copies are slower, and a warning says why.

    Args:
        shape: of the array, at least one byte.
        device_id: of the GPU; None for memory that no GPU will see.

    Returns:
        Array of ``shape``, uint8, in whole pages of its own. No view of it may outlive it.

    Raises:
        MemoryError: there is not that much.
    """
    size = math.prod(shape)
    try:
        pages = mmap.mmap(-1, size)
    except OSError as exc:
        raise MemoryError(f"{size} bytes could not be allocated: {exc.strerror}.") from exc
    array: UInt8Array = np.frombuffer(pages, dtype=np.uint8).reshape(shape)
    if device_id is not None:
        _lock(array, device_id)
    return array


def _lock(array: UInt8Array, device_id: int) -> None:
    address = ctypes.c_void_p(array.ctypes.data)
    try:
        # The one that ONNX Runtime's own CUDA provider has loaded.
        cuda = ctypes.CDLL(f"libcudart.so.{onnxruntime.cuda_version.partition('.')[0]}")
    except OSError as exc:
        log.warning("buffers.not_page_locked", reason=str(exc))
        return
    # Without the first, the second would take memory on GPU 0 for a context that nobody uses.
    status = cuda.cudaSetDevice(device_id) or cuda.cudaHostRegister(
        address, ctypes.c_size_t(array.nbytes), ctypes.c_uint(_PORTABLE)
    )
    if status:
        log.warning("buffers.not_page_locked", reason=f"CUDA error {status}")
        return
    # Unlocked before the pages go; at the end of the process there is nothing to unlock for.
    weakref.finalize(array, cuda.cudaHostUnregister, address).atexit = False
