"""Tells from the words of ONNX Runtime what a failed call means: less at once, another process, or nothing to be done.

The runtime has one kind of exception for all of it, so that its words decide. A call into one of NVIDIA's libraries
that fails is told in one way by every version so far (``cuda_call.cc``; the libraries are named in the provider's
binary)::

    CUDA failure 700: an illegal memory access was encountered ; GPU=0 ; hostname=... ; file=... ; line=... ; expr=...

What surrounds that clause is left out of our sentence: the runtime writes all of it to standard error by itself.
"""

from __future__ import annotations

import re

from defectoscope.errors.engine import DeviceLost, EngineFailed, EngineOutOfMemory

#: A lack of memory, in lower case: of the runtime's arena, of the C++ library, and as CUDA, cuBLAS and cuFFT
#: (``..._ALLOC_FAILED``) and cuDNN (``..._ALLOCATION_FAILED``) name it.
_OUT_OF_MEMORY = (
    "failed to allocate memory",
    "bad_alloc",
    "bad allocation",
    "out of memory",
    "alloc_failed",
    "allocation_failed",
)

#: A call into CUDA, CUDNN, CUDNN_FE, CUBLAS, CUFFT, ...
_LIBRARY_FAILED = re.compile(r"\b(CU[A-Z]+(?:_FE)? failure -?\d+: .*?)\s*(?:;|$)", re.MULTILINE)

#: The same without that form: of copies between host and device, and of TensorRT, which tells no reason.
_ALSO_OF_THE_DEVICE = ("cuda error", "tensorrt ep execution context enqueue failed")


def name_failure(exc: Exception, *, on_gpu: bool) -> EngineFailed | DeviceLost:
    """Return the error that a failed call of the model is.

    Args:
        exc: what the runtime or numpy raised.
        on_gpu: whether the call ran on a GPU.

    Returns:
        `EngineOutOfMemory` when fewer images may fit; `DeviceLost` when the GPU has failed, after which every later
        call of the process fails as well; `EngineFailed` otherwise.
    """
    words = str(exc)
    found = _LIBRARY_FAILED.search(words)
    reason = found[1] if found and on_gpu else words
    lowered = words.lower()
    if isinstance(exc, MemoryError) or any(word in lowered for word in _OUT_OF_MEMORY):
        return EngineOutOfMemory(f"The model needs more memory than there is: {reason}")
    if on_gpu and (found or any(word in lowered for word in _ALSO_OF_THE_DEVICE)):
        return DeviceLost(f"The GPU has failed: {reason}")
    return EngineFailed(f"ONNX Runtime could not run the model: {words}")
