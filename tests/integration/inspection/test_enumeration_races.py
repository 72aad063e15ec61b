from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Barrier

import pytest

from defectoscope.database import ChunkState, JobState
from defectoscope.errors.storage import StorageUnavailable
from defectoscope.inspection.jobs import cancel_job
from defectoscope.inspection.listing import PAGE_SIZE
from defectoscope.inspection.sources import InputBuckets
from defectoscope.storage import ObjectInfo, Storage, open_memory
from tests.integration.inspection.stores import OWN, no_bucket, put_all, run_enumeration, submit_prefix

IMAGES = 2 * PAGE_SIZE + 10
NAMES = [f"{number:05}.png" for number in range(IMAGES)]


@dataclass(frozen=True)
class Disturbed:
    """A storage whose listing does something after a number of keys."""

    storage: Storage
    after: int
    disturb: object

    def list(self, prefix: str = "", *, start_after: str | None = None) -> Iterator[ObjectInfo]:
        for number, entry in enumerate(self.storage.list(prefix, start_after=start_after)):
            if number == self.after:
                self.disturb()
            yield entry


def _buckets(storage):
    return InputBuckets(own_name=OWN, own=storage, open_bucket=no_bucket)


@pytest.fixture(scope="module")
def lot():
    storage = open_memory()
    put_all(storage, [f"lot/{name}" for name in NAMES])
    return storage


def _fail():
    raise StorageUnavailable


def test_an_enumeration_that_stopped_between_pages_goes_on_where_it_was(scene, lot):
    job_id = submit_prefix(scene, f"s3://{OWN}/lot")
    with pytest.raises(StorageUnavailable):
        run_enumeration(scene, _buckets(Disturbed(lot, PAGE_SIZE + 5, _fail)), job_id)
    after_the_first = [item.name for item in scene.items(job_id)]
    cursor = scene.job(job_id).enumeration_cursor

    run_enumeration(scene, _buckets(lot), job_id)

    assert after_the_first == NAMES[:PAGE_SIZE]
    assert cursor == f"lot/{NAMES[PAGE_SIZE - 1]}"
    assert [item.name for item in scene.items(job_id)] == NAMES
    assert scene.job(job_id).enumerated_at is not None


def test_chunks_of_the_first_page_can_be_worked_on_before_the_enumeration_ends(scene, lot):
    job_id = submit_prefix(scene, f"s3://{OWN}/lot")
    with pytest.raises(StorageUnavailable):
        run_enumeration(scene, _buckets(Disturbed(lot, PAGE_SIZE + 5, _fail)), job_id)

    for chunk_id in scene.owed(job_id):
        scene.finish(chunk_id, defects=())

    assert scene.job(job_id).state is JobState.RUNNING


def test_two_enumerations_at_once_give_each_image_once(scene, lot):
    job_id = submit_prefix(scene, f"s3://{OWN}/lot")
    together = Barrier(2)

    def enumerate_together(_):
        run_enumeration(scene, _buckets(Disturbed(lot, 0, together.wait)), job_id)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(enumerate_together, range(2)))

    assert [item.name for item in scene.items(job_id)] == NAMES
    chunk_ids = {item.chunk_id for item in scene.items(job_id)}
    assert chunk_ids == {chunk.id for chunk in scene.chunks(job_id)}
    assert scene.job(job_id).enumerated_at is not None


def test_a_slow_enumeration_that_was_overtaken_writes_nothing_more(scene, lot):
    job_id = submit_prefix(scene, f"s3://{OWN}/lot")

    def overtake():
        run_enumeration(scene, _buckets(lot), job_id)

    run_enumeration(scene, _buckets(Disturbed(lot, PAGE_SIZE + 5, overtake)), job_id)

    assert [item.name for item in scene.items(job_id)] == NAMES


def test_an_enumeration_of_an_enumerated_or_unknown_job_does_nothing(scene, lot):
    job_id = submit_prefix(scene, f"s3://{OWN}/lot")
    run_enumeration(scene, _buckets(lot), job_id)
    chunks = len(scene.chunks(job_id))

    run_enumeration(scene, _buckets(lot), job_id)
    run_enumeration(scene, _buckets(lot), job_id + 1000)

    assert len(scene.chunks(job_id)) == chunks


def test_a_cancellation_ends_an_enumeration_at_its_next_page(scene, lot):
    job_id = submit_prefix(scene, f"s3://{OWN}/lot")

    def cancel():
        cancel_job(database=scene.database, job_id=job_id)

    run_enumeration(scene, _buckets(Disturbed(lot, PAGE_SIZE + 5, cancel)), job_id)

    assert [item.name for item in scene.items(job_id)] == NAMES[:PAGE_SIZE]
    assert {chunk.state for chunk in scene.chunks(job_id)} == {ChunkState.CANCELLED}
    assert scene.job(job_id).state is JobState.CANCELLED
