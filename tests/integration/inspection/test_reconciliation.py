from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from defectoscope.database import ChunkState, ItemState, JobState
from defectoscope.inspection.chunks import release_chunk
from defectoscope.inspection.jobs import cancel_job
from defectoscope.inspection.reconciliation import TICK_LIMIT
from defectoscope.inspection.sources import Prefix
from defectoscope.inspection.submission import submit_job
from defectoscope.queue import messages


def _lose_worker(scene, chunk_id):
    """Claim a chunk and never come back."""
    scene.claim(chunk_id)
    scene.expire_leases()


def test_a_fresh_message_is_left_alone(scene):
    scene.submit(images=4)
    scene.queue.messages.clear()

    scene.reconcile()

    assert scene.queue.messages == []


def test_a_lost_message_is_sent_again_and_not_a_second_time_at_once(scene):
    job_id = scene.submit(images=4, chunk_size=2)
    scene.queue.messages.clear()
    scene.age_messages()

    scene.reconcile()
    scene.reconcile()

    assert scene.queue.messages == [messages.process_chunk(chunk_id) for chunk_id in scene.owed(job_id)]


def test_a_lost_enumeration_message_is_sent_again(scene):
    request = scene.request(Prefix(uri="s3://bucket/prefix"))
    job_id = submit_job(database=scene.database, queue=scene.queue, request=request, chunk_size=2)
    scene.queue.messages.clear()
    scene.age_messages()

    scene.reconcile()
    scene.reconcile()

    assert scene.queue.messages == [messages.enumerate_job(job_id)]


def test_a_chunk_given_back_is_sent_again_by_the_next_tick(scene):
    (chunk_id,) = scene.owed(scene.submit(images=2))
    release_chunk(database=scene.database, chunk=scene.claim(chunk_id), count_attempt=False)
    scene.queue.messages.clear()

    scene.reconcile()

    assert scene.queue.messages == [messages.process_chunk(chunk_id)]


def test_a_chunk_in_work_is_left_alone(scene):
    (chunk_id,) = scene.owed(scene.submit(images=2))
    scene.claim(chunk_id)
    scene.age_messages()
    scene.queue.messages.clear()

    scene.reconcile()

    assert scene.queue.messages == []
    assert scene.chunk(chunk_id).state is ChunkState.RUNNING


def test_a_chunk_of_a_silent_worker_is_owed_again(scene):
    (chunk_id,) = scene.owed(scene.submit(images=2))
    _lose_worker(scene, chunk_id)
    scene.queue.messages.clear()

    scene.reconcile()

    row = scene.chunk(chunk_id)
    assert (row.state, row.attempts, row.lease_owner) == (ChunkState.PENDING, 1, None)
    assert scene.queue.messages == [messages.process_chunk(chunk_id)]


def test_a_chunk_that_lost_its_worker_twice_goes_on_image_by_image(scene):
    job_id = scene.submit(images=3, chunk_size=3)
    (chunk_id,) = scene.owed(job_id)
    for _ in range(2):
        _lose_worker(scene, chunk_id)
    scene.queue.messages.clear()

    scene.reconcile()

    singles = scene.owed(job_id)
    assert scene.chunk(chunk_id).state is ChunkState.SPLIT
    assert scene.queue.messages == [messages.process_chunk(single) for single in singles]
    assert [scene.chunk(single).attempts for single in singles] == [0, 0, 0]
    claimed = [scene.claim(single) for single in singles]
    assert [[item.name for item in chunk.items] for chunk in claimed] == [["image-0"], ["image-1"], ["image-2"]]


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
        release_chunk(database=scene.database, chunk=scene.claim(chunk_id), count_attempt=False)
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


def test_a_job_whose_last_chunk_ended_without_ending_it_is_ended(scene):
    job_id = scene.submit(images=2)
    scene.execute("UPDATE chunks SET state = 'done'")
    scene.execute("UPDATE job_items SET state = 'failed'")

    scene.reconcile()

    assert scene.job(job_id).state is JobState.FAILED


def test_several_reconcilers_at_once_send_each_message_once(scene):
    job_id = scene.submit(images=60, chunk_size=1)
    scene.age_messages()
    scene.queue.messages.clear()
    reconcilers = 4
    together = Barrier(reconcilers)

    def reconcile(_):
        together.wait()
        scene.reconcile()

    with ThreadPoolExecutor(reconcilers) as pool:
        list(pool.map(reconcile, range(reconcilers)))
    scene.reconcile()

    sent = sorted(message.args[0] for message in scene.queue.messages)
    assert sent == scene.owed(job_id)


def test_a_silent_worker_is_noticed_behind_any_backlog_of_old_messages(scene):
    scene.submit(images=TICK_LIMIT + 1, chunk_size=1)
    (last,) = scene.owed(scene.submit(images=1, chunk_size=1))
    _lose_worker(scene, last)
    scene.age_messages()
    scene.queue.messages.clear()

    scene.reconcile()

    assert len(scene.queue.messages) == TICK_LIMIT
    assert messages.process_chunk(last) in scene.queue.messages
