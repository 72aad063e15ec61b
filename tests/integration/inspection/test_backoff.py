"""A chunk that met a fault rests before anybody may claim it again; one that a stopping worker gave back does not."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import func, select

from defectoscope.database import Chunk, ChunkState
from defectoscope.inspection.backoff import BACKOFF, Backoff
from defectoscope.inspection.chunks import claim_next_chunk, count_claimable
from defectoscope.inspection.leases import Release, release_chunk


def _give_back(scene, chunk, why, **release):
    release_chunk(database=scene.database, chunk=chunk, why=why, **release)


def _rest(scene, chunk_id):
    """How long a chunk still rests, seconds; None when it does not."""
    with scene.database.transaction() as session:
        rest = session.scalar(select(Chunk.next_run_at - func.now()).where(Chunk.id == chunk_id))
    return rest and rest.total_seconds()


@pytest.mark.parametrize(
    ("why", "attempts", "postponements", "rests"),
    [
        pytest.param(Release.STOPPED, 0, 0, False, id="stopped"),
        pytest.param(Release.POSTPONED, 0, 1, True, id="postponed"),
        pytest.param(Release.BROKEN, 1, 0, True, id="broken"),
    ],
)
def test_why_a_chunk_is_given_back_decides_what_is_counted_and_whether_it_rests(
    scene, why, attempts, postponements, rests
):
    (chunk_id,) = scene.owed(scene.submit(images=2))

    _give_back(scene, scene.claim_next(), why)

    row = scene.chunk(chunk_id)
    assert (row.state, row.lease_owner, row.lease_token) == (ChunkState.PENDING, None, 1)
    assert (row.attempts, row.postponements) == (attempts, postponements)
    assert (row.next_run_at is not None) is rests
    assert (scene.claim_next() is None) is rests


def test_a_chunk_that_has_rested_is_claimed_and_forgets_it(scene):
    (chunk_id,) = scene.owed(scene.submit(images=2))
    _give_back(scene, scene.claim_next(), Release.POSTPONED)
    scene.wake_up()

    claimed = scene.claim_next()

    assert (claimed.chunk_id, claimed.token) == (chunk_id, 2)
    assert scene.chunk(chunk_id).next_run_at is None


@pytest.mark.parametrize("why", [Release.POSTPONED, Release.BROKEN], ids=["postponed", "broken"])
def test_rests_double_up_to_the_longest_and_are_never_shorter_than_half(scene, why):
    backoff = Backoff(first_s=10, longest_s=60)
    (chunk_id,) = scene.owed(scene.submit(images=1))

    rests = []
    for _ in range(5):
        chunk = scene.claim_next(max_attempts=100)
        _give_back(scene, chunk, why, backoff=backoff)
        rests.append(_rest(scene, chunk_id))
        scene.wake_up()

    for rest, longest in zip(rests, [10, 20, 40, 60, 60], strict=True):
        assert longest / 2 - 5 < rest <= longest


def test_chunks_of_one_outage_do_not_come_back_together(scene):
    scene.submit(images=30, chunk_size=1)
    chunks = [scene.claim_next() for _ in range(30)]
    backoff = Backoff(first_s=1000, longest_s=1000)

    for chunk in chunks:
        _give_back(scene, chunk, Release.POSTPONED, backoff=backoff)

    rests = [_rest(scene, chunk.chunk_id) for chunk in chunks]
    assert len({round(rest, -1) for rest in rests}) > 15
    assert max(rests) - min(rests) > 250


def test_a_chunk_whose_holder_fell_silent_rests_from_the_end_of_its_lease(scene):
    backoff = Backoff(first_s=1000, longest_s=1000)
    scene.submit(images=1)
    scene.claim_next()

    def claim_after(seconds):
        with scene.database.transaction() as session:
            chunk = session.scalars(select(Chunk)).one()
            chunk.lease_expires_at = session.scalar(select(func.now())) - timedelta(seconds=seconds)
        counted = count_claimable(database=scene.database, max_attempts=3, most=8, backoff=backoff)
        claimed = claim_next_chunk(database=scene.database, owner="next", lease_s=60, max_attempts=3, backoff=backoff)
        return counted, claimed

    assert claim_after(499) == (0, None)
    counted, claimed = claim_after(1001)
    assert (counted, claimed.token) == (1, 2)


def test_without_a_rest_everything_is_claimed_at_once(scene):
    (chunk_id,) = scene.owed(scene.submit(images=1))
    never = Backoff(first_s=0)

    _give_back(scene, scene.claim_next(), Release.BROKEN, backoff=never)

    assert scene.claim_next().chunk_id == chunk_id


def test_after_many_faults_the_rest_is_still_the_longest(scene):
    (chunk_id,) = scene.owed(scene.submit(images=1))
    scene.execute("UPDATE chunks SET postponements = 1000000")

    _give_back(scene, scene.claim_next(), Release.POSTPONED)

    assert BACKOFF.longest_s / 2 - 1 < _rest(scene, chunk_id) <= BACKOFF.longest_s


def test_nobody_is_rung_for_chunks_that_rest(scene):
    scene.submit(images=1)
    _give_back(scene, scene.claim_next(), Release.POSTPONED)
    scene.queue.messages.clear()

    scene.reconcile()
    resting = scene.doorbells()
    scene.wake_up()
    scene.reconcile()

    assert (resting, scene.doorbells()) == (0, 1)


def test_an_image_whose_work_breaks_off_every_time_is_given_up_under_a_code_of_its_own(scene):
    job_id = scene.submit(images=1)
    for _ in range(3):
        _give_back(scene, scene.claim_next(), Release.BROKEN, fault="ZeroDivisionError")
        scene.wake_up()

    scene.reconcile()

    (item,) = scene.items(job_id)
    assert item.error_code == "inspection_broken"
    assert "(ZeroDivisionError)" in item.error_message


def test_what_the_last_claim_ended_in_decides_the_code(scene):
    job_id = scene.submit(images=1)
    for _ in range(2):
        _give_back(scene, scene.claim_next(), Release.BROKEN, fault="ZeroDivisionError")
        scene.wake_up()
    scene.claim_next()
    scene.expire_leases()

    scene.reconcile()

    assert scene.items(job_id)[0].error_code == "worker_lost"
