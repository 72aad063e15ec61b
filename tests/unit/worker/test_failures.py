"""Words of ONNX Runtime as people have met them; the forms are those of its `cuda_call.cc` and `bfc_arena.cc`."""

from __future__ import annotations

import pytest

from defectoscope.errors.engine import DeviceLost, EngineFailed, EngineOutOfMemory
from worker.failures import name_failure

_BEFORE = (
    "[ONNXRuntimeError] : 1 : FAIL : Non-zero status code returned while running Conv node. Name:'/encoder/conv1/Conv' "
    "Status Message: /onnxruntime_src/onnxruntime/core/providers/cuda/cuda_call.cc:129 std::conditional_t<THRW, void, "
    "onnxruntime::common::Status> onnxruntime::CudaCall(ERRTYPE, const char*, const char*) [with ERRTYPE = cudaError] "
)
_AFTER = " ; GPU=0 ; hostname=line-3 ; file=/onnxruntime_src/cuda/gpu_data_transfer.cc ; line=63 ; expr=launch(stream);"


def _told(clause: str) -> RuntimeError:
    return RuntimeError(f"{_BEFORE}{clause}{_AFTER} ")


@pytest.mark.parametrize(
    ("clause", "kind", "sentence"),
    [
        *(
            (clause, DeviceLost, "The GPU has failed")
            for clause in (
                "CUDA failure 700: an illegal memory access was encountered",
                "CUDA failure 719: unspecified launch failure",
                "CUDNN failure 5000: CUDNN_STATUS_EXECUTION_FAILED",
                "CUDNN_FE failure 11: CUDNN_BACKEND_API_FAILED",
                "CUBLAS failure 13: CUBLAS_STATUS_EXECUTION_FAILED",
                "CUFFT failure 6: CUFFT_EXEC_FAILED",
            )
        ),
        *(
            (clause, EngineOutOfMemory, "The model needs more memory than there is")
            for clause in (
                "CUDA failure 2: out of memory",
                "CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED",
                "CUFFT failure 2: CUFFT_ALLOC_FAILED",
                "CUDNN failure 4002: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
            )
        ),
    ],
)
def test_a_library_that_fails_on_the_gpu_is_told_by_its_clause_alone(clause, kind, sentence):
    error = name_failure(_told(clause), on_gpu=True)

    assert type(error) is kind
    assert error.message == f"{sentence}: {clause}"


@pytest.mark.parametrize("on_gpu", [True, False])
@pytest.mark.parametrize(
    "exc",
    [
        pytest.param(
            RuntimeError(
                "/onnxruntime_src/onnxruntime/core/framework/bfc_arena.cc:368 void* onnxruntime::BFCArena::"
                "AllocateRawInternal(size_t, bool) Failed to allocate memory for requested buffer of size 134217728"
            ),
            id="arena",
        ),
        pytest.param(RuntimeError("std::bad_alloc"), id="c++"),
        pytest.param(MemoryError(), id="numpy"),
    ],
)
def test_a_lack_of_memory_is_one_wherever_it_is_met(exc, on_gpu):
    assert type(name_failure(exc, on_gpu=on_gpu)) is EngineOutOfMemory


@pytest.mark.parametrize(
    "words",
    [
        "CUDA error executing cudaMemcpy(dst, src, bytes, cudaMemcpyHostToDevice) Copying 52 to 52",
        "[ONNXRuntimeError] : 1 : FAIL : TensorRT EP execution context enqueue failed.",
    ],
)
def test_what_the_gpu_says_in_other_words_has_lost_it_too(words):
    assert type(name_failure(RuntimeError(words), on_gpu=True)) is DeviceLost


def test_wrong_input_costs_no_gpu():
    words = "[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : Got invalid dimensions for input: images"

    error = name_failure(RuntimeError(words), on_gpu=True)

    assert type(error) is EngineFailed
    assert error.message == f"ONNX Runtime could not run the model: {words}"


def test_a_process_on_the_cpu_has_no_gpu_to_lose():
    assert type(name_failure(_told("CUDA failure 700: an illegal memory access"), on_gpu=False)) is EngineFailed
