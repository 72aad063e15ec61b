from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier

import pytest

from defectoscope.database import ItemState, JobState
from defectoscope.errors.images import ImageEmpty, LabelSizeMismatch
from defectoscope.errors.storage import ObjectNotFound
from defectoscope.events import list_events
from defectoscope.inspection.completion import ItemOutcome, complete_chunk
from defectoscope.inspection.jobs import cancel_job, fail_enumeration, retry_failed
from defectoscope.inspection.sources import Prefix
from defectoscope.inspection.submission import submit_job
from defectoscope.inspection.totals import count_items
from tests.integration.inspection.scene import succeeded


def _good(item):
    return succeeded(item)


def _bad(item):
    return ItemOutcome(item_id=item.item_id, error=ImageEmpty())


def _mislabelled(item):
    return replace(succeeded(item), label_error=LabelSizeMismatch())


@pytest.mark.parametrize(
    ("ends", "state"),
    [
        pytest.param([_good, _good], JobState.SUCCEEDED, id="all-good"),
        pytest.param([_good, _bad], JobState.PARTIAL, id="one-failed"),
        pytest.param([_bad, _bad], JobState.FAILED, id="all-failed"),
        pytest.param([_good, _mislabelled], JobState.PARTIAL, id="one-label-failed"),
    ],
)
def test_a_job_ends_as_its_images_did(scene, ends, state):
    job_id = scene.submit(images=2, chunk_size=2)
    chunk = scene.claim(scene.owed(job_id)[0])

    complete_chunk(
        database=scene.database,
        chunk=chunk,
        outcomes=[end(item) for end, item in zip(ends, chunk.items, strict=True)],
    )

    assert scene.job(job_id).state is state
    assert scene.job(job_id).finished_at is not None


def test_a_job_runs_until_its_last_chunk_is_done(scene):
    job_id = scene.submit(images=4, chunk_size=2)
    first, second = scene.owed(job_id)

    scene.finish(first)
    halfway = scene.job(job_id)
    scene.finish(second)

    assert (halfway.state, halfway.finished_at) == (JobState.RUNNING, None)
    assert scene.job(job_id).state is JobState.SUCCEEDED


def test_the_last_chunks_of_a_job_completing_at_once_still_end_it(scene):
    for _ in range(5):
        job_id = scene.submit(images=6, chunk_size=1)
        chunks = [scene.claim(chunk_id) for chunk_id in scene.owed(job_id)]
        together = Barrier(len(chunks))

        def complete(chunk, together=together):
            outcomes = [succeeded(item) for item in chunk.items]
            together.wait()
            return complete_chunk(database=scene.database, chunk=chunk, outcomes=outcomes)

        with ThreadPoolExecutor(len(chunks)) as pool:
            completed = list(pool.map(complete, chunks))

        assert completed == [True] * 6
        assert scene.job(job_id).state is JobState.SUCCEEDED


def test_a_chunk_that_hears_of_the_cancellation_keeps_what_is_done_and_cancels_the_rest(scene):
    job_id = scene.submit(images=4, chunk_size=4)
    chunk = scene.claim(scene.owed(job_id)[0])
    cancel_job(database=scene.database, job_id=job_id)
    running = scene.job(job_id).state

    complete_chunk(
        database=scene.database,
        chunk=chunk,
        outcomes=[_good(chunk.items[0]), _bad(chunk.items[1])],
        stopped=True,
    )

    assert running is JobState.RUNNING
    assert scene.job(job_id).state is JobState.CANCELLED
    assert count_items(scene.job(job_id)) == {
        ItemState.PENDING: 0,
        ItemState.SUCCEEDED: 1,
        ItemState.FAILED: 1,
        ItemState.CANCELLED: 2,
    }


def test_a_chunk_that_finishes_before_it_hears_of_the_cancellation_ends_the_job_as_cancelled(scene):
    job_id = scene.submit(images=2)
    chunk = scene.claim(scene.owed(job_id)[0])
    cancel_job(database=scene.database, job_id=job_id)

    scene.finish_claimed(chunk)

    assert scene.job(job_id).state is JobState.CANCELLED
    assert {item.state for item in scene.items(job_id)} == {ItemState.SUCCEEDED}


def _told(scene):
    """The events, oldest first."""
    with scene.database.transaction() as session:
        return [
            (event.kind, event.subject, event.severity.value, event.details["state"])
            for event in reversed(list_events(session))
        ]


def test_the_end_of_a_job_is_an_event_each_time_it_ends(scene):
    job_id = scene.submit(images=4, chunk_size=2)
    first, second = scene.owed(job_id)
    scene.finish(first)
    before = _told(scene)
    chunk = scene.claim(second)
    scene.complete(chunk, [end(item) for end, item in zip([_good, _bad], chunk.items, strict=True)])

    retry_failed(database=scene.database, queue=scene.queue, job_id=job_id, chunk_size=1)
    scene.finish(scene.owed(job_id)[0])

    assert before == []
    assert _told(scene) == [
        ("job.finished", f"job:{job_id}", "warning", "partial"),
        ("job.finished", f"job:{job_id}", "info", "succeeded"),
    ]


def test_the_event_of_a_job_holds_its_totals(scene):
    job_id = scene.submit(images=3, chunk_size=3)
    chunk = scene.claim(scene.owed(job_id)[0])

    scene.complete(chunk, [end(item) for end, item in zip([_good, _bad, _bad], chunk.items, strict=True)])

    with scene.database.transaction() as session:
        [event] = list_events(session)
    assert event.details["images"] == {"pending": 0, "succeeded": 1, "failed": 2, "cancelled": 0}
    assert event.details["defects"] == scene.job(job_id).defects
    assert event.message.startswith(f"Job {job_id} ended in part: 1 of 3 images inspected")


def test_a_cancelled_job_is_told_of(scene):
    job_id = scene.submit(images=2, chunk_size=2)

    cancel_job(database=scene.database, job_id=job_id)

    assert _told(scene) == [("job.finished", f"job:{job_id}", "info", "cancelled")]


def test_a_job_without_any_image_is_told_of(scene):
    request = scene.request(Prefix(uri="s3://bucket/prefix"))
    job_id = submit_job(database=scene.database, queue=scene.queue, request=request, chunk_size=2)

    fail_enumeration(database=scene.database, job_id=job_id, error=ObjectNotFound())

    assert _told(scene) == [("job.finished", f"job:{job_id}", "error", "failed")]
