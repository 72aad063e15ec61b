"""A job stops by itself when its deadline has passed or too many of its images failed, and can be retried then."""

from __future__ import annotations

import pytest

from defectoscope.database import ChunkState, ItemState, JobState
from defectoscope.errors.images import ImageEmpty
from defectoscope.errors.jobs import JobNotPausable
from defectoscope.inspection.completion import ItemOutcome, complete_chunk
from defectoscope.inspection.ending import LEAST_IMAGES_JUDGED, STOPPED_AT_ONCE
from defectoscope.inspection.jobs import cancel_job, pause_job, retry_failed
from defectoscope.inspection.leases import Lease, look_after
from defectoscope.inspection.sources import Prefix
from defectoscope.inspection.submission import submit_job
from tests.integration.inspection.scene import succeeded


def _ends(scene, job_id):
    return [(item.state, item.error_code) for item in scene.items(job_id)]


def _retry(scene, job_id):
    return retry_failed(database=scene.database, queue=scene.queue, job_id=job_id, chunk_size=2)


def _fail_next(scene):
    chunk = scene.claim_next()
    scene.complete(chunk, [ItemOutcome(item_id=item.item_id, error=ImageEmpty()) for item in chunk.items])


OVERDUE = (ItemState.FAILED, "deadline_exceeded")
LEFT = (ItemState.FAILED, "failure_budget_exceeded")
BAD = (ItemState.FAILED, "image_empty")
GOOD = (ItemState.SUCCEEDED, None)


def test_a_job_without_a_deadline_has_none(scene):
    job = scene.job(scene.submit())

    assert (job.deadline_at, job.max_failed_share, job.stopped_at) == (None, None, None)


def test_a_deadline_counts_from_the_submission(scene):
    job = scene.job(scene.submit(deadline_s=90))

    assert (job.deadline_at - job.created_at).total_seconds() == 90


def test_what_is_not_done_at_the_deadline_fails_by_name_and_ends_the_job(scene):
    job_id = scene.submit(images=4, chunk_size=2, deadline_s=600)
    scene.finish_claimed(scene.claim_next())
    scene.reconcile()
    before = scene.job(job_id).state
    scene.pass_deadlines()

    scene.reconcile()

    job = scene.job(job_id)
    assert before is JobState.RUNNING
    assert _ends(scene, job_id) == [GOOD, GOOD, OVERDUE, OVERDUE]
    assert (job.state, job.error_code) == (JobState.PARTIAL, "deadline_exceeded")
    assert (job.succeeded_images, job.failed_images, job.pending_images) == (2, 2, 0)


def test_nothing_is_begun_after_the_deadline_even_before_anybody_looked(scene):
    scene.submit(images=2, deadline_s=600)
    scene.pass_deadlines()

    claimed = scene.claim_next()

    assert claimed is None


def test_a_worker_hears_of_the_deadline_and_ends_the_job_with_what_it_has(scene):
    job_id = scene.submit(images=4, chunk_size=2, deadline_s=600)
    chunk = scene.claim_next()
    scene.pass_deadlines()

    (found,) = look_after(database=scene.database, chunks=[chunk])
    complete_chunk(database=scene.database, chunk=chunk, outcomes=[succeeded(chunk.items[0], defects=())], stopped=True)

    assert found is Lease.STOPPED
    assert _ends(scene, job_id) == [GOOD, OVERDUE, OVERDUE, OVERDUE]
    assert scene.job(job_id).state is JobState.PARTIAL


def test_a_worker_that_hears_nothing_of_the_deadline_keeps_what_it_has_done(scene):
    job_id = scene.submit(images=2, deadline_s=600)
    chunk = scene.claim_next()
    scene.pass_deadlines()
    scene.reconcile()

    scene.finish_claimed(chunk)

    assert _ends(scene, job_id) == [GOOD, GOOD]
    assert scene.job(job_id).error_code == "deadline_exceeded"


def test_an_overdue_chunk_of_a_lost_worker_is_ended_by_the_reconciler(scene):
    job_id = scene.submit(images=2, deadline_s=600)
    scene.claim_next()
    scene.pass_deadlines()
    scene.expire_leases()

    scene.reconcile()

    assert _ends(scene, job_id) == [OVERDUE, OVERDUE]
    assert scene.job(job_id).state is JobState.FAILED


def test_a_listing_ends_at_the_deadline(scene):
    request = scene.request(Prefix(uri="s3://bucket/prefix"), deadline_s=600)
    job_id = submit_job(database=scene.database, queue=scene.queue, request=request, chunk_size=2)
    scene.pass_deadlines()

    scene.reconcile()

    job = scene.job(job_id)
    assert (job.state, job.error_code) == (JobState.FAILED, "deadline_exceeded")
    assert job.enumerated_at is not None


def test_a_paused_job_is_overdue_too(scene):
    job_id = scene.submit(images=2, deadline_s=600)
    pause_job(database=scene.database, job_id=job_id)
    scene.pass_deadlines()

    scene.reconcile()

    assert scene.job(job_id).state is JobState.FAILED


def test_a_cancelled_job_stays_cancelled_after_its_deadline(scene):
    job_id = scene.submit(images=2, deadline_s=600)
    scene.claim_next()
    cancel_job(database=scene.database, job_id=job_id)
    scene.pass_deadlines()
    scene.expire_leases()

    scene.reconcile()

    assert _ends(scene, job_id) == [(ItemState.CANCELLED, None)] * 2
    assert scene.job(job_id).state is JobState.CANCELLED


def test_an_overdue_job_that_is_cancelled_while_it_stops_ends_as_cancelled(scene):
    job_id = scene.submit(images=4, chunk_size=2, deadline_s=600)
    held = scene.claim_next()
    scene.pass_deadlines()
    scene.reconcile()

    cancel_job(database=scene.database, job_id=job_id)
    complete_chunk(database=scene.database, chunk=held, outcomes=[], stopped=True)

    assert _ends(scene, job_id) == [(ItemState.CANCELLED, None)] * 2 + [OVERDUE] * 2
    assert scene.job(job_id).state is JobState.CANCELLED


def test_a_stopping_job_is_not_paused(scene):
    job_id = scene.submit(images=4, chunk_size=2, deadline_s=600)
    scene.claim_next()
    scene.pass_deadlines()
    scene.reconcile()

    with pytest.raises(JobNotPausable):
        pause_job(database=scene.database, job_id=job_id)


def test_a_very_large_overdue_job_is_ended_by_one_tick(scene):
    job_id = scene.submit(images=3 * STOPPED_AT_ONCE, chunk_size=1, deadline_s=600)
    scene.pass_deadlines()

    scene.reconcile()

    job = scene.job(job_id)
    assert (job.state, job.failed_images, job.pending_images) == (JobState.FAILED, 3 * STOPPED_AT_ONCE, 0)


def test_a_retry_of_an_overdue_job_has_no_deadline_and_no_error_any_more(scene):
    job_id = scene.submit(images=2, deadline_s=600)
    scene.pass_deadlines()
    scene.reconcile()

    retried = _retry(scene, job_id)
    scene.finish_claimed(scene.claim_next())

    job = scene.job(job_id)
    assert retried == 2
    assert (job.state, job.error_code, job.deadline_at, job.stopped_at) == (JobState.SUCCEEDED, None, None, None)


def test_a_deadline_that_is_still_to_come_survives_a_retry(scene):
    job_id = scene.submit(images=2, deadline_s=600)
    _fail_next(scene)

    _retry(scene, job_id)

    assert scene.job(job_id).deadline_at is not None


def test_too_many_failures_stop_the_job_and_leave_the_rest_by_name(scene):
    job_id = scene.submit(images=10, chunk_size=2, max_failed_share=0.1)
    _fail_next(scene)
    before = scene.job(job_id).state

    _fail_next(scene)

    job = scene.job(job_id)
    assert before is JobState.RUNNING
    assert _ends(scene, job_id) == [BAD] * 4 + [LEFT] * 6
    assert (job.state, job.error_code, job.failed_images) == (JobState.FAILED, "failure_budget_exceeded", 10)


def test_the_share_is_taken_of_what_has_ended_once_that_is_enough(scene):
    enough = LEAST_IMAGES_JUDGED * 2
    job_id = scene.submit(images=enough + 20, chunk_size=2, max_failed_share=0.1)
    for _ in range(enough // 2 - 2):
        scene.finish_claimed(scene.claim_next(), defects=())

    _fail_next(scene)
    _fail_next(scene)
    within = scene.job(job_id).stopped_at
    _fail_next(scene)

    assert within is None
    assert scene.job(job_id).error_code == "failure_budget_exceeded"


def test_a_share_of_nothing_stops_with_the_first_failure_and_a_flawless_job_not_at_all(scene):
    strict = scene.submit(images=4, chunk_size=2, max_failed_share=0.0)
    _fail_next(scene)
    flawless = scene.submit(images=2, chunk_size=2, prefix="good", max_failed_share=0.0)
    scene.finish_claimed(scene.claim_next())

    assert scene.job(strict).error_code == "failure_budget_exceeded"
    assert scene.job(flawless).state is JobState.SUCCEEDED


def test_images_that_took_down_their_workers_count_as_failures(scene):
    job_id = scene.submit(images=3, chunk_size=1, max_failed_share=0.0)
    poisonous, *_ = scene.owed(job_id)
    for _ in range(3):
        scene.claim(poisonous)
        scene.expire_leases()

    scene.reconcile()

    assert _ends(scene, job_id) == [(ItemState.FAILED, "worker_lost"), LEFT, LEFT]
    assert scene.job(job_id).state is JobState.FAILED


def test_chunks_in_work_of_a_job_over_its_budget_are_ended_by_their_workers(scene):
    job_id = scene.submit(images=6, chunk_size=2, max_failed_share=0.0)
    held = scene.claim_next()
    _fail_next(scene)

    (found,) = look_after(database=scene.database, chunks=[held])
    complete_chunk(database=scene.database, chunk=held, outcomes=[], stopped=True)

    assert found is Lease.STOPPED
    assert _ends(scene, job_id) == [LEFT, LEFT, BAD, BAD, LEFT, LEFT]
    assert {chunk.state for chunk in scene.chunks(job_id)} == {ChunkState.CANCELLED, ChunkState.DONE}


def test_a_retry_after_too_many_failures_goes_to_the_end(scene):
    job_id = scene.submit(images=4, chunk_size=2, max_failed_share=0.0)
    _fail_next(scene)

    _retry(scene, job_id)
    _fail_next(scene)
    scene.finish_claimed(scene.claim_next())

    job = scene.job(job_id)
    assert _ends(scene, job_id) == [BAD, BAD, GOOD, GOOD]
    assert (job.state, job.error_code, job.max_failed_share) == (JobState.PARTIAL, None, None)
