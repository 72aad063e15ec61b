"""A retry of very many images takes many short transactions, and goes on where it was when its process is lost."""

from __future__ import annotations

import pytest

from defectoscope.database import JobState
from defectoscope.inspection.jobs import RETRIED_AT_ONCE, cancel_job, continue_retry, retry_failed

IMAGES = 2 * RETRIED_AT_ONCE + 5


@pytest.fixture
def failed_job(scene):
    """An ended job of more images than one transaction opens, all failed."""
    job_id = scene.submit(images=1)
    scene.execute("UPDATE chunks SET state = 'done'")
    scene.execute(
        f"INSERT INTO job_items (job_id, name, source_uri, state, error_code) SELECT {job_id}, n::text, 's3://b/k',"  # noqa: S608
        f" 'failed', 'image_empty' FROM generate_series(2, {IMAGES}) AS n"
    )
    scene.execute("UPDATE job_items SET state = 'failed', error_code = 'image_empty' WHERE state = 'pending'")
    scene.execute(f"UPDATE jobs SET state = 'failed', pending_images = 0, failed_images = {IMAGES}")  # noqa: S608
    return job_id


def _retry(scene, job_id):
    return retry_failed(database=scene.database, queue=scene.queue, job_id=job_id, chunk_size=1000)


def _interrupt_after_one_turn(scene):
    """Leave a retry as a process leaves it that dies after its first transaction."""
    scene.execute(f"UPDATE jobs SET state = 'running', retry_cursor = 0, failed_images = {IMAGES}")  # noqa: S608


def test_every_image_is_opened_again_once(scene, failed_job):
    retried = _retry(scene, failed_job)

    job = scene.job(failed_job)
    assert retried == IMAGES
    assert (job.state, job.pending_images, job.failed_images) == (JobState.RUNNING, IMAGES, 0)
    assert job.retry_cursor is None
    assert sum(scene.chunk(chunk_id).image_count for chunk_id in scene.owed(failed_job)) == IMAGES


def test_a_turn_opens_a_bounded_number_of_images(scene, failed_job):
    _interrupt_after_one_turn(scene)

    opened = continue_retry(database=scene.database, queue=scene.queue, job_id=failed_job, chunk_size=1000)

    job = scene.job(failed_job)
    assert opened == RETRIED_AT_ONCE
    assert (job.pending_images, job.failed_images) == (RETRIED_AT_ONCE, IMAGES - RETRIED_AT_ONCE)


def test_a_retry_whose_process_was_lost_is_gone_on_with_and_takes_no_image_twice(scene, failed_job):
    _interrupt_after_one_turn(scene)
    continue_retry(database=scene.database, queue=scene.queue, job_id=failed_job, chunk_size=RETRIED_AT_ONCE)
    chunk = scene.claim_next()
    # All of what was opened fails again before the rest is opened.
    scene.execute("UPDATE job_items SET state = 'failed' WHERE state = 'pending'")
    scene.execute(f"UPDATE jobs SET pending_images = 0, failed_images = {IMAGES}")  # noqa: S608
    scene.execute("UPDATE chunks SET state = 'done'")
    scene.reconcile()

    job = scene.job(failed_job)
    assert len(chunk.items) == RETRIED_AT_ONCE
    assert (job.state, job.retry_cursor) == (JobState.RUNNING, None)
    assert (job.pending_images, job.failed_images) == (IMAGES - RETRIED_AT_ONCE, RETRIED_AT_ONCE)


def test_a_job_does_not_end_while_images_are_still_to_be_opened(scene, failed_job):
    _interrupt_after_one_turn(scene)

    scene.reconcile()

    job = scene.job(failed_job)
    assert (job.state, job.finished_at) == (JobState.RUNNING, None)
    assert job.pending_images == IMAGES


def test_a_cancellation_ends_a_retry_that_is_under_way(scene, failed_job):
    _interrupt_after_one_turn(scene)
    continue_retry(database=scene.database, queue=scene.queue, job_id=failed_job, chunk_size=1000)

    cancel_job(database=scene.database, job_id=failed_job)
    scene.reconcile()

    job = scene.job(failed_job)
    assert (job.state, job.retry_cursor) == (JobState.CANCELLED, None)
    assert (job.cancelled_images, job.failed_images) == (RETRIED_AT_ONCE, IMAGES - RETRIED_AT_ONCE)
