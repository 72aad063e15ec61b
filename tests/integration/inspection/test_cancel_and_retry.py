from __future__ import annotations

import pytest

from defectoscope.database import ChunkState, ItemState, JobState
from defectoscope.errors.images import ImageEmpty
from defectoscope.errors.jobs import JobNotCancellable, JobNotFound, JobNotRetryable
from defectoscope.inspection.completion import ItemOutcome, complete_chunk
from defectoscope.inspection.jobs import cancel_job, retry_failed
from defectoscope.inspection.sources import Prefix
from defectoscope.inspection.submission import submit_job
from defectoscope.queue import messages
from tests.integration.inspection.scene import succeeded


def _finish_with_failures(scene, job_id, failing):
    for chunk_id in scene.owed(job_id):
        chunk = scene.claim(chunk_id)
        outcomes = [
            ItemOutcome(item_id=item.item_id, error=ImageEmpty()) if item.name in failing else succeeded(item)
            for item in chunk.items
        ]
        complete_chunk(database=scene.database, chunk=chunk, outcomes=outcomes)


def test_a_job_nobody_has_begun_is_cancelled_at_once(scene):
    job_id = scene.submit(images=4, chunk_size=2)

    cancel_job(database=scene.database, job_id=job_id)

    assert scene.job(job_id).state is JobState.CANCELLED
    assert {chunk.state for chunk in scene.chunks(job_id)} == {ChunkState.CANCELLED}
    assert {item.state for item in scene.items(job_id)} == {ItemState.CANCELLED}


def test_a_job_that_is_still_to_be_enumerated_is_cancelled_at_once(scene):
    request = scene.request(Prefix(uri="s3://bucket/prefix"))
    job_id = submit_job(database=scene.database, queue=scene.queue, request=request, chunk_size=2)

    cancel_job(database=scene.database, job_id=job_id)

    assert scene.job(job_id).state is JobState.CANCELLED


def test_cancelling_twice_is_no_error_while_a_chunk_is_in_work(scene):
    job_id = scene.submit(images=2)
    scene.claim(scene.owed(job_id)[0])

    cancel_job(database=scene.database, job_id=job_id)
    asked_at = scene.job(job_id).cancel_requested_at
    cancel_job(database=scene.database, job_id=job_id)

    assert scene.job(job_id).state is JobState.RUNNING
    assert scene.job(job_id).cancel_requested_at == asked_at


def test_an_ended_job_cannot_be_cancelled(scene):
    job_id = scene.submit(images=1)
    scene.finish(scene.owed(job_id)[0])

    with pytest.raises(JobNotCancellable):
        cancel_job(database=scene.database, job_id=job_id)

    assert scene.job(job_id).state is JobState.SUCCEEDED


def test_a_job_that_does_not_exist_is_neither_cancelled_nor_retried(scene):
    with pytest.raises(JobNotFound):
        cancel_job(database=scene.database, job_id=1000)
    with pytest.raises(JobNotFound):
        retry_failed(database=scene.database, queue=scene.queue, job_id=1000, chunk_size=2)


def test_a_retry_takes_the_failed_images_alone_and_ends_the_job_anew(scene):
    job_id = scene.submit(images=6, chunk_size=3)
    _finish_with_failures(scene, job_id, {"image-1", "image-4", "image-5"})
    done_before = {item.name: item.result_id for item in scene.items(job_id) if item.result_id}
    before = scene.job(job_id).state
    scene.queue.messages.clear()

    count = retry_failed(database=scene.database, queue=scene.queue, job_id=job_id, chunk_size=2)
    reopened = scene.job(job_id)
    owed = scene.owed(job_id)
    claimed = [item.name for chunk_id in owed for item in scene.claim(chunk_id).items]
    scene.expire_leases()
    for chunk_id in owed:
        scene.finish(chunk_id)

    assert before is JobState.PARTIAL
    assert count == 3
    assert (reopened.state, reopened.finished_at) == (JobState.RUNNING, None)
    assert scene.queue.messages == [messages.process_next_chunk()] * len(owed)
    assert claimed == ["image-1", "image-4", "image-5"]
    assert scene.job(job_id).state is JobState.SUCCEEDED
    after = {item.name: item for item in scene.items(job_id)}
    assert {name: after[name].result_id for name in done_before} == done_before
    assert {item.error_code for item in after.values()} == {None}


def test_a_retry_starts_with_fresh_attempts(scene):
    job_id = scene.submit(images=1)
    for _ in range(3):
        scene.claim(scene.owed(job_id)[0])
        scene.expire_leases()
    scene.reconcile()
    given_up = scene.items(job_id)[0].error_code

    retry_failed(database=scene.database, queue=scene.queue, job_id=job_id, chunk_size=2)

    assert given_up == "worker_lost"
    assert scene.chunk(scene.owed(job_id)[0]).attempts == 0


def test_a_running_a_cancelled_and_a_flawless_job_are_not_retried(scene):
    running = scene.submit(images=1)
    cancelled = scene.submit(images=1)
    cancel_job(database=scene.database, job_id=cancelled)
    flawless = scene.submit(images=1)
    scene.finish(scene.owed(flawless)[0])

    for job_id in (running, cancelled, flawless):
        with pytest.raises(JobNotRetryable):
            retry_failed(database=scene.database, queue=scene.queue, job_id=job_id, chunk_size=2)


def test_a_retried_job_can_be_cancelled(scene):
    job_id = scene.submit(images=2)
    _finish_with_failures(scene, job_id, {"image-0"})
    retry_failed(database=scene.database, queue=scene.queue, job_id=job_id, chunk_size=2)

    cancel_job(database=scene.database, job_id=job_id)

    assert scene.job(job_id).state is JobState.CANCELLED
    assert [item.state for item in scene.items(job_id)] == [ItemState.CANCELLED, ItemState.SUCCEEDED]
