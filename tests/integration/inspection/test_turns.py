"""Whose turn it is: which chunk of which job a claim takes."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text

from defectoscope.database import ItemState, JobState, Priority
from defectoscope.errors.jobs import JobNotFound, JobNotPausable
from defectoscope.inspection.jobs import cancel_job, pause_job, prioritise_job, resume_job, retry_failed
from defectoscope.inspection.leases import Release, release_chunk
from defectoscope.inspection.sources import Prefix
from defectoscope.inspection.submission import submit_job
from defectoscope.queue import WAITING_DOORBELLS


def _pause(scene, job_id):
    pause_job(database=scene.database, job_id=job_id)


def _resume(scene, job_id):
    resume_job(database=scene.database, queue=scene.queue, job_id=job_id)


def _prioritise(scene, job_id, priority):
    prioritise_job(database=scene.database, job_id=job_id, priority=priority)


def _claim_all(scene):
    """Claim until nothing is left; the jobs in the order of their turns."""
    turns = []
    while chunk := scene.claim_next():
        turns.append(chunk.job_id)
    return turns


def test_within_a_job_the_oldest_chunk_comes_first(scene):
    owed = scene.owed(scene.submit(images=5, chunk_size=1))

    claimed = [scene.claim_next().chunk_id for _ in range(5)]

    assert claimed == owed


def test_each_claim_goes_to_the_job_with_the_fewest_chunks_in_work(scene):
    large = scene.submit(images=40, chunk_size=1, prefix="large")
    small = [scene.submit(images=3, chunk_size=1, prefix=prefix) for prefix in "ab"]

    turns = _claim_all(scene)

    # Three rounds in which every job has one, then what is left of the large one.
    assert [Counter(turns[start : start + 3]) for start in (0, 3, 6)] == [Counter([large, *small])] * 3
    assert turns[9:] == [large] * 37


def test_a_small_job_does_not_wait_behind_a_large_one_on_a_single_thread(scene):
    large = scene.submit(images=500, chunk_size=1, prefix="large")
    small = scene.submit(images=10, chunk_size=1, prefix="small")

    turns = []
    while scene.job(small).state is JobState.RUNNING:
        chunk = scene.claim_next()
        turns.append(chunk.job_id)
        scene.finish_claimed(chunk, defects=())

    # A fair coin gives ten turns out of 150 except once in 10^30.
    assert len(turns) < 150
    assert large in turns


def test_a_higher_priority_goes_before_however_many_chunks_it_has_in_work(scene):
    normal, low, high = (scene.submit(images=3, chunk_size=1, prefix=prefix) for prefix in ("n", "l", "h"))
    _prioritise(scene, low, Priority.LOW)
    _prioritise(scene, high, Priority.HIGH)

    turns = _claim_all(scene)

    assert turns == [high] * 3 + [normal] * 3 + [low] * 3


def test_a_job_may_be_submitted_with_a_priority(scene):
    request = scene.request(Prefix(uri="s3://bucket/prefix"), priority=Priority.HIGH)

    job_id = submit_job(database=scene.database, queue=scene.queue, request=request, chunk_size=2)

    assert scene.job(job_id).priority == Priority.HIGH


def test_chunks_whose_lease_ran_out_are_no_longer_in_work_and_have_their_turn(scene):
    lost = scene.submit(images=3, chunk_size=1, prefix="lost")
    for _ in range(3):
        scene.claim_next()
    scene.expire_leases()
    other = scene.submit(images=1, chunk_size=1, prefix="other")

    turns = _claim_all(scene)

    assert Counter(turns) == Counter({lost: 3, other: 1})
    assert other in turns[:2]


def test_many_claimers_at_once_take_every_chunk_once(scene):
    jobs = [scene.submit(images=20, chunk_size=1, prefix=prefix) for prefix in "abc"]

    with ThreadPoolExecutor(8) as pool:
        claimed = [chunk for chunk in pool.map(lambda _: scene.claim_next(), range(80)) if chunk]

    assert len({chunk.chunk_id for chunk in claimed}) == len(claimed) == 60
    assert Counter(chunk.job_id for chunk in claimed) == Counter(dict.fromkeys(jobs, 20))


def test_of_a_paused_job_nothing_is_begun_and_what_is_in_work_is_finished(scene):
    job_id = scene.submit(images=4, chunk_size=2)
    in_work = scene.claim_next()

    _pause(scene, job_id)
    claimed = scene.claim_next()
    scene.finish_claimed(in_work)

    job = scene.job(job_id)
    assert claimed is None
    assert (job.state, job.succeeded_images, job.pending_images) == (JobState.RUNNING, 2, 2)
    assert job.paused_at is not None


def test_a_resumed_job_goes_on_and_rings(scene):
    job_id = scene.submit(images=2)
    _pause(scene, job_id)
    scene.queue.messages.clear()

    _resume(scene, job_id)
    chunk = scene.claim_next()

    assert scene.doorbells() == WAITING_DOORBELLS
    assert chunk.job_id == job_id


def test_a_paused_job_can_be_cancelled(scene):
    job_id = scene.submit(images=4, chunk_size=2)
    _pause(scene, job_id)

    cancel_job(database=scene.database, job_id=job_id)

    assert scene.job(job_id).state is JobState.CANCELLED
    assert {item.state for item in scene.items(job_id)} == {ItemState.CANCELLED}


def test_pausing_and_resuming_twice_changes_nothing(scene):
    job_id = scene.submit(images=1)

    _resume(scene, job_id)
    _pause(scene, job_id)
    first = scene.job(job_id).paused_at
    _pause(scene, job_id)

    assert scene.job(job_id).paused_at == first


def test_a_job_that_ended_while_it_was_paused_is_not_paused_when_it_is_retried(scene):
    job_id = scene.submit(images=1)
    for _ in range(3):
        scene.claim_next()
        scene.expire_leases()
    _pause(scene, job_id)
    scene.reconcile()
    ended = scene.job(job_id).state

    retry_failed(database=scene.database, queue=scene.queue, job_id=job_id, chunk_size=2)

    assert ended is JobState.FAILED
    assert scene.claim_next().job_id == job_id


@pytest.mark.parametrize("act", [_pause, _resume], ids=["pause", "resume"])
def test_a_job_that_has_ended_or_is_being_cancelled_is_neither_paused_nor_resumed(scene, act):
    ended = scene.submit(images=1, prefix="ended")
    scene.finish(*scene.owed(ended))
    cancelled = scene.submit(images=1, prefix="cancelled")
    scene.claim_next()
    cancel_job(database=scene.database, job_id=cancelled)

    for job_id in (ended, cancelled):
        with pytest.raises(JobNotPausable):
            act(scene, job_id)
    with pytest.raises(JobNotFound):
        act(scene, 1000)


def test_a_chunk_given_back_by_blame_waits_for_the_reconciler_after_its_second_failure(scene):
    job_id = scene.submit(images=2, chunk_size=2)
    for _ in range(2):
        release_chunk(database=scene.database, chunk=scene.claim_next(), why=Release.BROKEN)
        scene.wake_up()

    before = scene.claim_next()
    scene.reconcile()
    after = [scene.claim_next() for _ in range(2)]

    assert before is None
    assert [[item.name for item in chunk.items] for chunk in after] == [["image-0"], ["image-1"]]
    assert len(scene.chunks(job_id)) == 3


def test_a_claim_looks_at_few_rows_however_many_chunks_wait(scene):
    for prefix in "abc":
        scene.submit(images=1, chunk_size=1, prefix=prefix)
    scene.execute("INSERT INTO chunks (job_id, image_count) SELECT 1 + n % 3, 16 FROM generate_series(1, 30000) AS n")
    scene.execute("ANALYZE chunks")
    blocks = "SELECT blks_hit + blks_read FROM pg_stat_database WHERE datname = current_database()"

    def count_blocks():
        with scene.database.transaction() as session:
            session.execute(text("SELECT pg_stat_force_next_flush()"))
        with scene.database.transaction() as session:
            session.execute(text("SELECT pg_stat_clear_snapshot()"))
            return session.scalar(text(blocks))

    scene.claim_next()
    before = count_blocks()
    for _ in range(10):
        scene.claim_next()
    after = count_blocks()

    # The table has 220 blocks; a claim that walked along it, or along its index, would need thousands in all.
    assert (after - before) / 10 < 150
