from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from sqlalchemy import select

from defectoscope.database import Chunk, ChunkState, ItemState, JobState
from defectoscope.errors.images import ImageTruncated
from defectoscope.inspection.completion import ItemOutcome, complete_chunk
from defectoscope.inspection.jobs import cancel_job
from defectoscope.inspection.leases import Lease, Release, look_after, release_chunk
from tests.integration.inspection.scene import PARAMS, succeeded


def test_a_claim_hands_over_the_pending_images_in_order_with_everything_needed(scene):
    job_id = scene.submit(images=3, chunk_size=2)
    first, second = scene.owed(job_id)

    chunk = scene.claim(first, owner="host:1")

    assert [item.name for item in chunk.items] == ["image-0", "image-1"]
    assert [item.source_uri for item in chunk.items] == ["s3://bucket/image-0", "s3://bucket/image-1"]
    assert (chunk.job_id, chunk.token, chunk.model_version, chunk.params) == (job_id, 1, 1, PARAMS)
    row = scene.chunk(first)
    assert (row.state, row.attempts, row.lease_owner) == (ChunkState.RUNNING, 1, "host:1")
    assert row.lease_expires_at is not None
    assert scene.chunk(second).state is ChunkState.PENDING


def test_a_doubled_message_finds_nothing_to_claim(scene):
    job_id = scene.submit(images=2)
    (chunk_id,) = scene.owed(job_id)
    held = scene.claim(chunk_id)

    second = scene.claim(chunk_id)

    assert second is None
    assert scene.chunk(chunk_id).attempts == 1
    assert scene.chunk(chunk_id).lease_token == held.token


def test_a_message_about_no_chunk_or_a_finished_one_finds_nothing_to_claim(scene):
    job_id = scene.submit(images=2)
    (chunk_id,) = scene.owed(job_id)
    scene.finish(chunk_id)

    assert scene.claim(chunk_id) is None
    assert scene.claim(chunk_id + 1000) is None


def test_of_many_claimers_at_once_exactly_one_wins(scene):
    (chunk_id,) = scene.owed(scene.submit(images=2))
    claimers = 8
    together = Barrier(claimers)

    def claim(number):
        together.wait()
        return scene.claim(chunk_id, owner=f"worker-{number}")

    with ThreadPoolExecutor(claimers) as pool:
        claims = [claim for claim in pool.map(claim, range(claimers)) if claim is not None]

    assert len(claims) == 1
    assert scene.chunk(chunk_id).attempts == 1


def test_a_chunk_whose_lease_ran_out_is_taken_over_and_the_late_holder_is_fenced_off(scene):
    job_id = scene.submit(images=2)
    (chunk_id,) = scene.owed(job_id)
    late = scene.claim(chunk_id, owner="late")
    scene.expire_leases()

    taken_over = scene.claim(chunk_id, owner="second")
    late_renewal = look_after(database=scene.database, chunks=[late], renew_for_s=60)
    late_success = complete_chunk(
        database=scene.database, chunk=late, outcomes=[succeeded(item, defects=()) for item in late.items]
    )

    assert taken_over.token == late.token + 1
    assert late_renewal == [Lease.LOST]
    assert late_success is False
    assert scene.chunk(chunk_id).state is ChunkState.RUNNING
    assert [item.state for item in scene.items(job_id)] == [ItemState.PENDING] * 2
    assert scene.finish_claimed(taken_over) is True
    assert scene.job(job_id).state is JobState.SUCCEEDED


def test_a_late_holder_writes_nothing_after_its_successor_has_finished(scene):
    job_id = scene.submit(images=2)
    (chunk_id,) = scene.owed(job_id)
    late = scene.claim(chunk_id)
    scene.expire_leases()
    scene.finish(chunk_id)

    late_success = complete_chunk(
        database=scene.database,
        chunk=late,
        outcomes=[ItemOutcome(item_id=item.item_id, error=ImageTruncated()) for item in late.items],
    )

    assert late_success is False
    assert [item.state for item in scene.items(job_id)] == [ItemState.SUCCEEDED] * 2


def test_a_late_holder_cannot_give_back_what_its_successor_holds(scene):
    (chunk_id,) = scene.owed(scene.submit(images=2))
    late = scene.claim(chunk_id)
    scene.expire_leases()
    scene.claim(chunk_id)

    release_chunk(database=scene.database, chunk=late, why=Release.STOPPED)

    row = scene.chunk(chunk_id)
    assert (row.state, row.attempts) == (ChunkState.RUNNING, 2)


def test_a_renewed_lease_cannot_be_taken_over(scene):
    (chunk_id,) = scene.owed(scene.submit(images=2))
    chunk = scene.claim(chunk_id)
    scene.expire_leases()

    renewed = look_after(database=scene.database, chunks=[chunk], renew_for_s=60)

    assert renewed == [Lease.HELD]
    assert scene.claim(chunk_id) is None


def test_a_look_without_a_renewal_leaves_the_leases_as_they_are(scene):
    (chunk_id,) = scene.owed(scene.submit(images=2))
    chunk = scene.claim(chunk_id)
    scene.expire_leases()

    found = look_after(database=scene.database, chunks=[chunk])

    assert found == [Lease.HELD]
    assert scene.claim(chunk_id).token == chunk.token + 1


def test_one_look_tells_of_every_claim_what_became_of_it(scene):
    jobs = [scene.submit(images=2, prefix=prefix) for prefix in "lhcd"]
    chunks = [scene.claim(*scene.owed(job_id)) for job_id in jobs]
    scene.execute("UPDATE chunks SET lease_token = lease_token + 1 WHERE id = (SELECT min(id) FROM chunks)")
    cancel_job(database=scene.database, job_id=jobs[2])
    scene.finish_claimed(chunks[3])

    for renew_for_s in (None, 60):
        found = look_after(database=scene.database, chunks=chunks, renew_for_s=renew_for_s)

        assert found == [Lease.LOST, Lease.HELD, Lease.STOPPED, Lease.LOST]


def test_a_renewal_does_not_wait_for_a_chunk_that_is_being_completed(scene):
    job_id = scene.submit(images=4, chunk_size=2)
    chunks = [scene.claim(chunk_id) for chunk_id in scene.owed(job_id)]
    scene.expire_leases()

    with ThreadPoolExecutor(1) as pool, scene.database.transaction() as session:
        session.scalars(select(Chunk).where(Chunk.id == chunks[0].chunk_id).with_for_update()).one()
        renewing = pool.submit(look_after, database=scene.database, chunks=chunks, renew_for_s=60)
        found = renewing.result(timeout=5)

    assert found == [Lease.HELD, Lease.HELD]
    assert scene.claim(chunks[1].chunk_id) is None


def test_a_chunk_of_a_cancelled_job_cannot_be_claimed_even_if_it_was_held_and_given_back(scene):
    job_id = scene.submit(images=2)
    (chunk_id,) = scene.owed(job_id)
    chunk = scene.claim(chunk_id)
    cancel_job(database=scene.database, job_id=job_id)
    release_chunk(database=scene.database, chunk=chunk, why=Release.STOPPED)

    claimed = scene.claim(chunk_id)

    assert claimed is None
