"""Decoding in processes of its own: the same pixels and errors, and an end of a process that ends nothing else."""

from __future__ import annotations

import concurrent.futures
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from defectoscope.connect import open_decoder
from defectoscope.errors.images import (
    DecoderUnavailable,
    ImageDecoderDied,
    ImageDecodeTimeout,
    ImageMultiFrame,
    ImageTooLarge,
    ImageTruncated,
    InvalidLabel,
)
from defectoscope.segmentation import DecodeLimits, DirectDecoder, encode_class_mask
from defectoscope.segmentation.isolation import IsolatedDecoder, ProcessLimits
from defectoscope.settings import DecodeSettings, Settings
from tests.bombs import png_of_blank_pixels
from tests.images import declare_png, draw_part, encode, encode_frames, encode_turned

PART, TRUTH = draw_part(height=201, width=333)
FILES = {
    "jpeg": encode(PART, "JPEG"),
    "jpeg-turned": encode_turned(PART, "JPEG", orientation=6),
    "png": encode(PART, "PNG"),
    "tiff": encode(PART, "TIFF"),
    "bmp": encode(PART, "BMP"),
    "webp": encode(PART, "WEBP"),
    "cmyk": encode(PART, "JPEG", mode="CMYK"),
    "16-bit": encode(np.arange(600, dtype=np.uint16).reshape(20, 30), "PNG"),
}
LABEL = encode_class_mask(TRUTH)


@pytest.fixture(scope="module")
def decoder():
    decoder = IsolatedDecoder(processes=1)
    yield decoder
    decoder.close()


def slow_file():
    """Takes a process about a second, and is 15 kilobytes."""
    return png_of_blank_pixels(11_000)


def process_of(decoder):
    """The one process of a pool, as the operating system sees it."""
    return psutil.Process(decoder._processes[0]._process.pid)


@pytest.mark.parametrize("least_size_wh", [None, (40, 30)], ids=["whole", "reduced"])
@pytest.mark.parametrize("data", FILES.values(), ids=FILES.keys())
def test_an_image_is_the_same_to_the_bit(decoder, data, least_size_wh):
    here, there = DirectDecoder().open(data), decoder.open(data)

    pixels_here = here.decode(least_size_wh=least_size_wh)
    pixels_there = there.decode(least_size_wh=least_size_wh)

    assert (there.data, there.shape_hw, there.format, there.source_mode) == (
        data,
        here.shape_hw,
        here.format,
        here.source_mode,
    )
    np.testing.assert_array_equal(pixels_there.pixels, pixels_here.pixels)
    assert pixels_there.shape_hw == pixels_here.shape_hw
    assert pixels_there.pixels.flags.writeable
    assert pixels_there.pixels.flags.c_contiguous


def test_a_label_is_the_same_to_the_bit(decoder):
    np.testing.assert_array_equal(decoder.label(LABEL), TRUTH)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        pytest.param(FILES["png"][:500], ImageTruncated, id="cut"),
        pytest.param(encode_frames("TIFF"), ImageMultiFrame, id="pages"),
        pytest.param(declare_png(30_000, 30_000), ImageTooLarge, id="huge"),
    ],
)
def test_a_refusal_crosses_with_its_class_its_words_and_its_details(decoder, data, error):
    with pytest.raises(error) as there:
        decoder.open(data).decode()
    with pytest.raises(error) as here:
        DirectDecoder().open(data).decode()

    assert (there.value.message, there.value.details) == (here.value.message, here.value.details)


def test_a_label_that_is_refused_crosses_likewise(decoder):
    with pytest.raises(InvalidLabel) as refusal:
        decoder.label(LABEL[:100])

    assert refusal.value.details == {"reason": "image_truncated"}


def test_pixels_stay_as_they_were_when_the_next_file_comes(decoder):
    first = decoder.open(FILES["png"]).decode().pixels
    kept = first.copy()

    decoder.open(FILES["16-bit"]).decode()
    first[0, 0] += 1

    np.testing.assert_array_equal(first[1:], kept[1:])
    np.testing.assert_array_equal(decoder.open(FILES["png"]).decode().pixels, kept)


def test_a_process_that_was_killed_between_two_files_costs_nothing(decoder):
    decoder.open(FILES["png"])
    killed = process_of(decoder)

    killed.kill()
    killed.wait(10)

    assert decoder.open(FILES["png"]).shape_hw == PART.shape[:2]
    assert process_of(decoder).pid != killed.pid


def test_a_file_that_ends_two_processes_gets_a_named_error_and_the_next_file_a_third_one(decoder):
    is_over = threading.Event()
    ended = set()

    def kill_whoever_decodes():
        # As the kernel does to a process that takes all memory: as soon as one is at work on the file.
        while not is_over.is_set():
            process = decoder._processes[0]._process
            if process is not None and process.pid not in ended and _has_computed(process.pid, beyond_s=began_s):
                ended.add(process.pid)
                os.kill(process.pid, signal.SIGKILL)
            time.sleep(0.002)

    decoder.open(FILES["png"])
    began_s = _cpu_s(decoder._processes[0]._process.pid) + 0.05
    killer = threading.Thread(target=kill_whoever_decodes)
    killer.start()
    try:
        with pytest.raises(ImageDecoderDied):
            decoder.open(slow_file()).decode()
    finally:
        is_over.set()
        killer.join()

    assert len(ended) == 2
    assert decoder.open(FILES["png"]).shape_hw == PART.shape[:2]


def _cpu_s(pid):
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return times.user + times.system


def _has_computed(pid, *, beyond_s):
    return _cpu_s(pid) > beyond_s


def test_a_file_that_takes_too_long_gets_a_named_error_and_its_process_is_gone():
    decoder = IsolatedDecoder(processes=1, process_limits=ProcessLimits(timeout_s=0.1))
    decoder.open(FILES["png"])
    slow = process_of(decoder)

    with pytest.raises(ImageDecodeTimeout) as caught:
        decoder.open(slow_file()).decode()

    assert caught.value.details == {"timeout_s": 0.1}
    assert not slow.is_running()
    assert decoder.open(FILES["png"]).shape_hw == PART.shape[:2]
    decoder.close()


def test_a_file_that_wants_more_memory_than_a_process_has_is_too_large():
    decoder = IsolatedDecoder(processes=1, process_limits=ProcessLimits(memory_bytes=2**29 + 2**28))

    with pytest.raises(ImageTooLarge, match="more memory"):
        decoder.open(png_of_blank_pixels(14_000)).decode()

    assert decoder.open(FILES["png"]).decode().shape_hw == PART.shape[:2]
    decoder.close()


def test_processes_that_cannot_start_are_no_fault_of_the_file():
    decoder = IsolatedDecoder(
        processes=1, limits=DecodeLimits(max_pixels=2**70), process_limits=ProcessLimits(memory_bytes=2**29)
    )

    with pytest.raises(DecoderUnavailable):
        decoder.open(FILES["png"])


def test_many_threads_share_a_few_processes():
    decoder = IsolatedDecoder(processes=2)
    parts = [draw_part(seed=seed)[0] for seed in range(6)]
    files = [encode(part, "PNG") for part in parts]

    with concurrent.futures.ThreadPoolExecutor(6) as threads:
        decoded = list(threads.map(lambda data: decoder.open(data).decode().pixels, files * 5))
    decoder.close()

    assert all(np.array_equal(pixels, part) for pixels, part in zip(decoded, parts * 5, strict=True))


def test_a_process_knows_no_secret_and_keeps_few_files_open():
    program = """
import os, psutil
os.environ["DEFECTOSCOPE_STORAGE__SECRET_KEY"] = "secret"
from defectoscope.segmentation.isolation import IsolatedDecoder
from tests.images import draw_part, encode
decoder = IsolatedDecoder(processes=1)
data = encode(draw_part()[0], "PNG")
for _ in range(40):
    decoder.open(data).decode()
process = psutil.Process(decoder._processes[0]._process.pid)
print(sum(name.startswith("DEFECTOSCOPE_") for name in process.environ()), process.num_fds() < 12)
print(len(psutil.Process().open_files()) < 5)
os._exit(0)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)

    assert done.stdout.split() == ["0", "True", "True"]


def test_the_processes_end_with_their_parent():
    program = """
import os
from defectoscope.segmentation.isolation import IsolatedDecoder
from tests.images import draw_part, encode
decoder = IsolatedDecoder(processes=1)
decoder.open(encode(draw_part()[0], "PNG"))
print(decoder._processes[0]._process.pid, flush=True)
os.kill(os.getpid(), 9)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)

    pid = int(done.stdout)
    deadline_s = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists() and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


def test_the_settings_choose_who_decodes():
    direct = open_decoder(Settings())
    isolated = open_decoder(Settings(decode=DecodeSettings(isolation="process", processes=1)))

    assert isinstance(direct, DirectDecoder)
    assert isinstance(isolated, IsolatedDecoder)
    assert isolated.open(FILES["png"]).shape_hw == direct.open(FILES["png"]).shape_hw
    isolated.close()
