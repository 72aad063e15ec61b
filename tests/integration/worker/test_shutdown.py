"""A real worker process that is told to end gives its chunks back in time, whatever it is doing."""

from __future__ import annotations

import signal
import subprocess
import time

import pytest

from defectoscope.connect import open_queue
from defectoscope.database import ChunkState, JobState
from defectoscope.queue import ring_for_chunks
from tests.images import draw_part, encode
from tests.integration.worker.processes import wait_until

PICTURES = {f"{seed}.png": encode(draw_part(height=64, width=64, seed=seed)[0], "PNG") for seed in range(16)}


@pytest.fixture
def working(bench, processes, settings):
    """Start a worker that has a chunk of many images in work, one call of the model behind it and one under way."""

    def start(**worker):
        job_id = bench.submit(PICTURES, chunk_size=16)
        process = processes.start(**worker)
        ring_for_chunks(open_queue(settings, name="test"), chunks=1)
        (chunk_id,) = bench.owed(job_id)
        wait_until(lambda: list(bench.storage.list("masks/")))
        return process, job_id, chunk_id

    return start


def _end(process, number, *, within_s):
    """Send a signal; return the exit status and how long it took."""
    began = time.monotonic()
    process.send_signal(number)
    try:
        return process.wait(timeout=within_s), time.monotonic() - began
    except subprocess.TimeoutExpired:
        pytest.fail(f"the process has not ended within {within_s} s")


def _assert_given_back(bench, job_id, chunk_id):
    chunk = bench.chunk(chunk_id)
    assert (chunk.state, chunk.attempts, chunk.lease_owner) == (ChunkState.PENDING, 0, None)
    assert chunk.next_run_at is None
    bench.work(job_id)
    assert bench.job(job_id).state is JobState.SUCCEEDED


def test_a_warm_shutdown_gives_the_chunk_back_between_two_batches(bench, working, processes):
    process, job_id, chunk_id = working(call_s=0.5)

    status, seconds = _end(process, signal.SIGTERM, within_s=8)

    assert status == 0, processes.log(process)
    assert "worker.departing" not in processes.log(process)
    assert seconds < 8
    _assert_given_back(bench, job_id, chunk_id)


def test_a_call_of_the_model_that_outlasts_the_grace_time_is_left(bench, working, processes):
    process, job_id, chunk_id = working(
        call_s=6, DEFECTOSCOPE_WORKER__STOP_GRACE_S="1", DEFECTOSCOPE_WORKER__BATCH_SIZE="1"
    )

    status, seconds = _end(process, signal.SIGTERM, within_s=15)

    assert status == 70, processes.log(process)
    assert 1 <= seconds < 4
    assert "has not ended within its 1 s" in processes.log(process)
    _assert_given_back(bench, job_id, chunk_id)


def test_a_cold_shutdown_waits_for_no_call_of_the_model(bench, working, processes):
    process, job_id, chunk_id = working(call_s=6, DEFECTOSCOPE_WORKER__BATCH_SIZE="1")

    status, seconds = _end(process, signal.SIGQUIT, within_s=15)

    assert status == 70, processes.log(process)
    assert seconds < 4
    _assert_given_back(bench, job_id, chunk_id)


def test_a_worker_without_work_ends_at_once(bench, processes):
    process = processes.start()
    wait_until(lambda: "celery@" in processes.log(process) or "ready" in processes.log(process))

    status, seconds = _end(process, signal.SIGTERM, within_s=10)

    assert status == 0, processes.log(process)
    assert seconds < 8


def test_a_killed_worker_gives_nothing_back_and_loses_nothing(bench, working):
    process, job_id, chunk_id = working(call_s=0.5)

    status, _ = _end(process, signal.SIGKILL, within_s=10)

    chunk = bench.chunk(chunk_id)
    assert status == -signal.SIGKILL
    assert (chunk.state, chunk.attempts) == (ChunkState.RUNNING, 1)
    bench.expire_leases()
    bench.work(job_id)
    assert bench.job(job_id).state is JobState.SUCCEEDED
