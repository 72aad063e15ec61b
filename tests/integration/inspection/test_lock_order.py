"""Nobody waits for a chunk with a job in hand, and a job in somebody's hand stops nobody from writing its chunks.

Each test holds one lock and has the other side finish meanwhile. If it had to wait, the two could wait for each other.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace

import pytest
from sqlalchemy import select, text

from defectoscope.database import Chunk, ChunkState, JobState
from defectoscope.inspection.ending import lock_job
from defectoscope.inspection.images import register_images
from defectoscope.inspection.jobs import cancel_job
from tests.integration.inspection.scene import image_facts, succeeded


def _has_to_wait(pool, act, **arguments):
    """Whether something is not done within five seconds; the lock that is held meanwhile is released by the caller."""
    return bool(wait([pool.submit(act, **arguments)], timeout=5).not_done)


def _lose_worker_twice(scene, chunk_id):
    for _ in range(2):
        scene.claim(chunk_id)
        scene.expire_leases()


def test_a_chunk_is_split_while_a_cancellation_holds_its_job(scene):
    job_id = scene.submit(images=3, chunk_size=3)
    (chunk_id,) = scene.owed(job_id)
    _lose_worker_twice(scene, chunk_id)

    with ThreadPoolExecutor(1) as pool, scene.database.transaction() as session:
        lock_job(session, job_id)
        waited = _has_to_wait(pool, scene.reconcile)

    assert not waited
    assert scene.chunk(chunk_id).state is ChunkState.SPLIT


def test_a_cancellation_passes_over_a_chunk_that_is_being_written(scene):
    job_id = scene.submit(images=4, chunk_size=2)
    held, free = scene.owed(job_id)

    with ThreadPoolExecutor(1) as pool, scene.database.transaction() as session:
        session.scalars(select(Chunk).where(Chunk.id == held).with_for_update()).one()
        waited = _has_to_wait(pool, cancel_job, database=scene.database, job_id=job_id)
    passed_over = scene.chunk(held).state
    scene.reconcile()

    assert not waited
    assert passed_over is ChunkState.PENDING
    assert scene.chunk(free).state is ChunkState.CANCELLED
    assert scene.chunk(held).state is ChunkState.CANCELLED
    assert scene.job(job_id).state is JobState.CANCELLED


def test_the_reconciler_passes_over_a_chunk_that_is_being_written(scene):
    job_id = scene.submit(images=4, chunk_size=2)
    held, free = scene.owed(job_id)
    for chunk_id in (held, free):
        _lose_worker_twice(scene, chunk_id)

    with ThreadPoolExecutor(1) as pool, scene.database.transaction() as session:
        session.scalars(select(Chunk).where(Chunk.id == held).with_for_update()).one()
        waited = _has_to_wait(pool, scene.reconcile)

    assert not waited
    assert scene.chunk(held).state is ChunkState.RUNNING
    assert scene.chunk(free).state is ChunkState.SPLIT


def test_a_claim_passes_over_a_chunk_that_is_being_written_and_waits_for_no_job(scene):
    job_id = scene.submit(images=4, chunk_size=2)
    held, free = scene.owed(job_id)

    with ThreadPoolExecutor(1) as pool, scene.database.transaction() as session:
        lock_job(session, job_id)
        session.scalars(select(Chunk).where(Chunk.id == held).with_for_update()).one()
        waited = _has_to_wait(pool, scene.claim_next)

    assert not waited
    assert scene.chunk(held).state is ChunkState.PENDING
    assert scene.chunk(free).state is ChunkState.RUNNING


def test_images_are_written_in_one_order_whatever_the_order_in_their_chunk(scene):
    chunk = scene.claim(*scene.owed(scene.submit(images=2)))
    small, large = sorted((image_facts("one"), image_facts("two")), key=lambda facts: facts.sha256)
    outcomes = [replace(succeeded(item), image=facts) for item, facts in zip(chunk.items, (large, small), strict=True)]

    with ThreadPoolExecutor(1) as pool:
        with scene.database.transaction() as session:
            register_images(session, [small])
            completed = pool.submit(scene.complete, chunk, outcomes)
            _wait_until_somebody_waits(scene)
            # Had the other written the large one first, each would now wait for the other.
            register_images(session, [large])

        assert completed.result() is True


def _wait_until_somebody_waits(scene):
    deadline = time.monotonic() + 10
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    while time.monotonic() < deadline:
        with scene.database.transaction() as session:
            if session.scalar(text(waiting)):
                return
        time.sleep(0.02)
    pytest.fail("nobody waits")
