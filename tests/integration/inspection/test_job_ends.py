from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier

import pytest

from defectoscope.database import ItemState, JobState
from defectoscope.errors import ImageEmpty, LabelSizeMismatch
from defectoscope.inspection.completion import ItemOutcome, complete_chunk
from defectoscope.inspection.jobs import cancel_job
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
        cancelled=True,
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
