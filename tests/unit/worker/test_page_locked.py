from __future__ import annotations

import onnxruntime
import pytest
from structlog.testing import capture_logs

from worker.device import CPU, check_device
from worker.page_locked import allocate

HAS_GPU = check_device("auto") != CPU


@pytest.fixture(autouse=True)
def cuda_libraries():
    """What the CUDA provider loads; they need no GPU to be there."""
    if hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()


def test_memory_is_zero_writable_and_begins_with_a_page():
    array = allocate((3, 5, 7), device_id=None)

    array[2, 4, 6] = 9

    assert array.shape == (3, 5, 7)
    assert array.sum() == 9
    assert array.ctypes.data % 4096 == 0


def test_where_cuda_refuses_the_memory_is_ordinary_and_a_warning_says_why():
    with capture_logs() as lines:
        array = allocate((2, 8192), device_id=0)
    array[:] = 1

    assert array.sum() == 2 * 8192
    reasons = [line["reason"] for line in lines if line["event"] == "buffers.not_page_locked"]
    assert len(reasons) == (0 if HAS_GPU else 1)
    # The library itself was found and has answered: 35 or 100 is its way to say that there is no driver or no device.
    assert all(reason.startswith("CUDA error ") for reason in reasons)


def test_memory_can_be_locked_again_after_it_was_given_back():
    # More often than a process may lock memory it has not unlocked.
    for _ in range(64):
        with capture_logs() as lines:
            allocate((1, 2**20), device_id=0)
        assert len(lines) == (0 if HAS_GPU else 1)
