from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from defectoscope.database import ChunkState, ItemState, JobState
from defectoscope.inspection.chunks import count_claimable
from defectoscope.inspection.ending import STOPPED_AT_ONCE
from defectoscope.inspection.jobs import cancel_job, pause_job
from defectoscope.inspection.leases import Release, release_chunk
from defectoscope.inspection.reconciliation import TICK_LIMIT
from defectoscope.inspection.sources import Prefix
from defectoscope.inspection.submission import submit_job
from defectoscope.queue import WAITING_DOORBELLS, messages


def _lose_worker(scene, chunk_id):
    """Claim a chunk and never come back."""
    scene.claim(chunk_id)
    scene.expire_leases()


def test_doorbells_that_wait_are_not_rung_again_however_long_they_wait(scene):
    scene.submit(images=100, chunk_size=1)

    for _ in range(3):
        scene.reconcile()

    assert scene.doorbells() == WAITING_DOORBELLS


def test_lost_doorbells_are_rung_again_once_for_each_chunk_that_could_be_claimed(scene):
    scene.submit(images=4, chunk_size=2)
    scene.queue.messages.clear()

    scene.reconcile()
    scene.reconcile()

    assert scene.doorbells() == 2


def test_where_nothing_could_be_claimed_nobody_rings(scene):
    paused, cancelled, worn = (scene.submit(images=2, prefix=name) for name in ("a", "b", "c"))
    pause_job(database=scene.database, job_id=paused)
    cancel_job(database=scene.database, job_id=cancelled)
    for _ in range(2):
        _lose_worker(scene, *scene.owed(worn))

    owed = count_claimable(database=scene.database, max_attempts=3, most=8)

    assert owed == 0


def test_a_lost_enumeration_message_is_sent_again(scene):
    request = scene.request(Prefix(uri="s3://bucket/prefix"))
    job_id = submit_job(database=scene.database, queue=scene.queue, request=request, chunk_size=2)
    scene.queue.messages.clear()
    scene.age_messages()

    scene.reconcile()
    scene.reconcile()

    assert scene.queue.messages == [messages.enumerate_job(job_id)]


def test_a_chunk_in_work_is_left_alone(scene):
    (chunk_id,) = scene.owed(scene.submit(images=2))
    scene.claim(chunk_id)
    scene.queue.messages.clear()

    scene.reconcile()

    assert scene.queue.messages == []
    assert scene.chunk(chunk_id).state is ChunkState.RUNNING


def test_a_chunk_of_a_silent_worker_is_owed_again(scene):
    (chunk_id,) = scene.owed(scene.submit(images=2))
    _lose_worker(scene, chunk_id)
    scene.queue.messages.clear()

    scene.reconcile()

    again = scene.claim_next()
    assert scene.doorbells() == 1
    assert (again.chunk_id, again.token, scene.chunk(chunk_id).attempts) == (chunk_id, 2, 2)


def test_a_chunk_that_lost_its_worker_twice_goes_on_image_by_image(scene):
    job_id = scene.submit(images=3, chunk_size=3)
    (chunk_id,) = scene.owed(job_id)
    for _ in range(2):
        _lose_worker(scene, chunk_id)
    scene.queue.messages.clear()

    scene.reconcile()

    singles = scene.owed(job_id)
    assert scene.chunk(chunk_id).state is ChunkState.SPLIT
    assert scene.doorbells() == 3
    assert [scene.chunk(single).attempts for single in singles] == [0, 0, 0]
    claimed = [scene.claim(single) for single in singles]
    assert [[item.name for item in chunk.items] for chunk in claimed] == [["image-0"], ["image-1"], ["image-2"]]


def test_a_chunk_that_lost_its_worker_twice_is_not_claimed_before_it_is_split(scene):
    job_id = scene.submit(images=3, chunk_size=3)
    (chunk_id,) = scene.owed(job_id)
    for _ in range(2):
        _lose_worker(scene, chunk_id)

    claimed = scene.claim_next()

    assert claimed is None
    assert scene.chunk(chunk_id).attempts == 2


def test_a_chunk_of_which_one_image_is_left_is_tried_as_often_as_an_image(scene):
    job_id = scene.submit(images=2, chunk_size=2)
    (chunk_id,) = scene.owed(job_id)
    scene.execute("UPDATE job_items SET state = 'cancelled' WHERE name = 'image-0'")
    for _ in range(2):
        _lose_worker(scene, chunk_id)

    scene.reconcile()
    claimed = scene.claim_next()

    assert [item.name for item in claimed.items] == ["image-1"]


def test_an_image_that_takes_its_worker_down_every_time_fails_alone(scene):
    job_id = scene.submit(images=3, chunk_size=3)
    for _ in range(2):
        _lose_worker(scene, scene.owed(job_id)[0])
    scene.reconcile()
    poisonous, *others = scene.owed(job_id)
    for chunk_id in others:
        scene.finish(chunk_id)

    for _ in range(3):
        _lose_worker(scene, poisonous)
        scene.reconcile(max_attempts=3)

    states = {item.name: (item.state, item.error_code) for item in scene.items(job_id)}
    assert states == {
        "image-0": (ItemState.FAILED, "worker_lost"),
        "image-1": (ItemState.SUCCEEDED, None),
        "image-2": (ItemState.SUCCEEDED, None),
    }
    assert scene.job(job_id).state is JobState.PARTIAL


def test_with_one_attempt_a_chunk_is_split_and_its_image_given_up_after_one_loss_each(scene):
    job_id = scene.submit(images=2, chunk_size=2)
    _lose_worker(scene, scene.owed(job_id)[0])
    scene.reconcile(max_attempts=1)
    for single in scene.owed(job_id):
        _lose_worker(scene, single)

    scene.reconcile(max_attempts=1)

    assert {item.error_code for item in scene.items(job_id)} == {"worker_lost"}
    assert scene.job(job_id).state is JobState.FAILED


def test_an_outage_never_uses_up_the_attempts(scene):
    job_id = scene.submit(images=1)
    (chunk_id,) = scene.owed(job_id)

    for _ in range(10):
        release_chunk(database=scene.database, chunk=scene.claim(chunk_id), why=Release.POSTPONED)
        scene.wake_up()
        scene.reconcile()

    assert scene.owed(job_id) == [chunk_id]


def test_the_chunk_of_a_dead_worker_of_a_cancelled_job_is_cancelled_and_ends_the_job(scene):
    job_id = scene.submit(images=2)
    (chunk_id,) = scene.owed(job_id)
    scene.claim(chunk_id)
    cancel_job(database=scene.database, job_id=job_id)
    scene.reconcile()
    before = scene.job(job_id).state
    scene.expire_leases()

    scene.reconcile()

    assert before is JobState.RUNNING
    assert scene.chunk(chunk_id).state is ChunkState.CANCELLED
    assert scene.job(job_id).state is JobState.CANCELLED
    assert {item.state for item in scene.items(job_id)} == {ItemState.CANCELLED}


def test_a_pending_chunk_of_a_cancelled_job_is_cancelled_by_the_next_tick(scene):
    """A cancellation passes over a chunk that somebody else is writing at that moment."""
    job_id = scene.submit(images=2)
    scene.execute("UPDATE jobs SET cancel_requested_at = now()")

    scene.reconcile()

    assert scene.job(job_id).state is JobState.CANCELLED


def test_a_cancelled_job_of_very_many_chunks_is_ended_by_the_next_tick(scene):
    job_id = scene.submit(images=3 * STOPPED_AT_ONCE, chunk_size=1)

    cancel_job(database=scene.database, job_id=job_id)
    before = scene.job(job_id)
    scene.reconcile()

    after = scene.job(job_id)
    assert (before.state, before.cancelled_images) == (JobState.RUNNING, STOPPED_AT_ONCE)
    assert (after.state, after.cancelled_images, after.pending_images) == (
        JobState.CANCELLED,
        3 * STOPPED_AT_ONCE,
        0,
    )


def test_a_job_whose_last_chunk_ended_without_ending_it_is_ended(scene):
    job_id = scene.submit(images=2)
    scene.execute("UPDATE chunks SET state = 'done'")
    scene.execute("UPDATE job_items SET state = 'failed'")

    scene.reconcile()

    assert scene.job(job_id).state is JobState.FAILED


def test_several_reconcilers_at_once_settle_each_chunk_once(scene):
    job_id = scene.submit(images=60, chunk_size=6)
    for _ in range(2):
        while scene.claim_next():
            pass
        scene.expire_leases()
    reconcilers = 4
    together = Barrier(reconcilers)

    def reconcile(_):
        together.wait()
        scene.reconcile()

    with ThreadPoolExecutor(reconcilers) as pool:
        list(pool.map(reconcile, range(reconcilers)))
    scene.reconcile()

    assert [chunk.state for chunk in scene.chunks(job_id)] == [ChunkState.SPLIT] * 10 + [ChunkState.PENDING] * 60


def test_a_worn_chunk_is_noticed_behind_any_backlog(scene):
    scene.submit(images=TICK_LIMIT + 1, chunk_size=1)
    (last,) = scene.owed(scene.submit(images=2, chunk_size=2))
    for _ in range(2):
        _lose_worker(scene, last)

    scene.reconcile()

    assert scene.chunk(last).state is ChunkState.SPLIT
