from __future__ import annotations

import threading
import time
from dataclasses import dataclass

import pytest
import structlog
from pydantic import SecretStr
from sqlalchemy import select, text
from sqlalchemy.exc import IntegrityError

from defectoscope.database import ChunkState, ItemState, JobState, ModelVariant, ModelVersion
from defectoscope.inspection.chunks import claim_next_chunk
from defectoscope.inspection.jobs import cancel_job
from defectoscope.inspection.leases import Lease
from defectoscope.inspection.reconciliation import reconcile
from defectoscope.inspection.sources import Prefix
from defectoscope.inspection.submission import JobRequest, submit_job
from defectoscope.settings import DatabaseSettings
from tests.images import draw_part, encode
from worker.inspector import Inspector
from worker.lease import EnumerationWord, Leases

GOOD = encode(draw_part(height=256, width=256, seed=1)[0], "PNG")


@dataclass(frozen=True)
class Others:
    """Makes workers with other settings and closes them."""

    settings: object
    made: list

    def __call__(self, **sections):
        inspector = Inspector(self.settings.model_copy(update=sections))
        self.made.append(inspector)
        return inspector


@pytest.fixture
def other_worker(settings):
    others = Others(settings, [])
    yield others
    for inspector in others.made:
        inspector.close()


def _owe_again(bench, job_id):
    return [(chunk.state, chunk.attempts) for chunk in map(bench.chunk, bench.owed(job_id))]


def test_while_the_storage_is_away_the_chunk_is_given_back_without_counting_the_attempt(bench, other_worker):
    away = bench.settings.storage.model_copy(update={"endpoint_url": "http://127.0.0.1:1"})
    worker = other_worker(storage=away, worker=_with_model_of(bench))
    job_id = bench.submit({"a.png": GOOD})

    worker.process_next_chunk()

    assert _owe_again(bench, job_id) == [(ChunkState.PENDING, 0)]
    bench.work(job_id)
    assert bench.job(job_id).state is JobState.SUCCEEDED


def _with_model_of(bench):
    """Have the model on disk already, so that only images need the storage."""
    bench.work(bench.submit({"warm.png": encode(draw_part(height=256, width=256, seed=9)[0], "PNG")}))
    return bench.settings.worker


def test_while_the_storage_is_away_a_worker_without_the_model_gives_the_chunk_back_too(bench, other_worker):
    job_id = bench.submit({"a.png": GOOD})
    away = bench.settings.storage.model_copy(update={"endpoint_url": "http://127.0.0.1:1"})

    other_worker(storage=away).process_next_chunk()

    assert _owe_again(bench, job_id) == [(ChunkState.PENDING, 0)]


def test_while_the_database_is_away_a_message_is_dropped_without_an_error(bench, other_worker):
    worker = other_worker(database=DatabaseSettings(url=SecretStr("postgresql+psycopg://nobody@127.0.0.1:1/none")))

    worker.process_next_chunk()
    worker.enumerate_job(1)
    worker.reconcile()


def test_wrong_credentials_fail_each_image_by_name_and_are_not_tried_for_ever(bench, other_worker):
    storage = bench.settings.storage.model_copy(update={"secret_key": SecretStr("wrong")})
    worker = other_worker(storage=storage, worker=_with_model_of(bench))
    job_id = bench.submit({"a.png": GOOD, "b.png": GOOD})

    worker.process_next_chunk()

    assert {view.item.error_code for view in bench.items(job_id).values()} == {"storage_denied"}
    assert bench.job(job_id).state is JobState.FAILED


def test_a_label_that_may_not_be_read_leaves_the_result(bench):
    job_id = bench.submit({"a.png": GOOD}, labels={"a.png": GOOD})
    _execute(bench, "UPDATE job_items SET label_uri = 's3://not-ours/a.png'")

    bench.work(job_id)

    item = bench.items(job_id)["a.png"].item
    assert (item.state, item.label_error_code) == (ItemState.SUCCEEDED, "bucket_not_allowed")


def test_a_mask_that_is_gone_fails_its_image_and_spares_the_others(bench):
    other = encode(draw_part(height=256, width=256, seed=2)[0], "PNG")
    first = bench.submit({"a.png": GOOD})
    bench.work(first)
    bench.storage.delete([bench.results(first)["a.png"][0].mask_key])

    second = bench.submit({"a.png": GOOD, "b.png": other}, labels={"a.png": GOOD, "b.png": GOOD})
    bench.work(second)

    items = bench.items(second)
    assert items["a.png"].item.error_code == "object_not_found"
    assert items["b.png"].item.state is ItemState.SUCCEEDED


@pytest.fixture
def unwritable_results(bench):
    """Results cannot be written, for a reason that nothing in the worker knows of."""
    _execute(bench, "ALTER TABLE results ADD CONSTRAINT never CHECK (id < 0)")
    yield
    _execute(bench, "ALTER TABLE results DROP CONSTRAINT never")


@pytest.mark.usefixtures("unwritable_results")
def test_an_error_that_nobody_foresaw_counts_the_claim_has_the_chunk_rest_and_leaves_its_trace(bench, other_worker):
    job_id = bench.submit({"a.png": GOOD})
    inspection = bench.settings.inspection.model_copy(update={"backoff_s": 600})

    with structlog.testing.capture_logs() as logs, pytest.raises(IntegrityError):
        other_worker(inspection=inspection).process_next_chunk()

    chunk = bench.chunk(*bench.owed(job_id))
    assert (chunk.state, chunk.attempts, chunk.fault) == (ChunkState.PENDING, 1, "IntegrityError")
    assert not bench.inspector.process_next_chunk()
    (broken,) = [entry for entry in logs if entry["event"] == "chunk.broken"]
    assert isinstance(broken["exc_info"][1], IntegrityError)
    assert broken["exc_info"][2] is not None


@pytest.mark.usefixtures("unwritable_results")
def test_an_image_that_always_ends_in_such_an_error_is_given_up_by_name(bench):
    job_id = bench.submit({"a.png": GOOD})

    for _ in range(3):
        with pytest.raises(IntegrityError):
            bench.inspector.process_next_chunk()
    bench.inspector.reconcile()

    assert bench.items(job_id)["a.png"].item.error_code == "inspection_broken"
    assert bench.job(job_id).state is JobState.FAILED


def test_a_worker_that_is_asked_to_stop_gives_the_chunk_back_without_counting_the_attempt(bench, other_worker):
    job_id = bench.submit({"a.png": GOOD})
    stopping = other_worker()
    stopping.request_stop()

    stopping.process_next_chunk()

    assert _owe_again(bench, job_id) == [(ChunkState.PENDING, 0)]
    bench.work(job_id)
    assert bench.job(job_id).state is JobState.SUCCEEDED


def test_a_chunk_whose_job_was_cancelled_is_not_begun(bench):
    job_id = bench.submit({"a.png": GOOD})
    cancel_job(database=bench.database, job_id=job_id)

    claimed = bench.inspector.process_next_chunk()

    assert not claimed
    assert bench.items(job_id)["a.png"].item.state is ItemState.CANCELLED


def test_cuda_where_there_is_none_gives_the_chunk_back_to_a_worker_that_has_it(bench, other_worker):
    job_id = bench.submit({"a.png": GOOD})
    worker = other_worker(worker=bench.settings.worker.model_copy(update={"device": "cuda"}))

    worker.process_next_chunk()

    assert _owe_again(bench, job_id) == [(ChunkState.PENDING, 0)]


def test_a_model_file_that_is_not_the_recorded_one_fails_the_images_by_name(bench):
    job_id = bench.submit({"a.png": GOOD})
    with bench.database.transaction() as session:
        key = session.scalars(select(ModelVariant.key)).one()
    bench.storage.put(key, b"something else", content_type="application/octet-stream")

    bench.work(job_id)

    assert bench.job(job_id).state is JobState.FAILED
    assert bench.items(job_id)["a.png"].item.error_message.endswith("does not have its recorded hash.")


def test_a_model_file_that_is_damaged_on_disk_is_fetched_again(bench, other_worker):
    bench.work(bench.submit({"a.png": GOOD}))
    for path in bench.settings.worker.model_cache_dir.glob("*.onnx"):
        path.write_bytes(b"damaged")
    job_id = bench.submit({"b.png": encode(draw_part(height=256, width=256, seed=3)[0], "PNG")})

    other_worker().process_next_chunk()

    assert bench.job(job_id).state is JobState.SUCCEEDED


def test_the_heart_beats_while_the_work_lasts(bench):
    bench.submit({f"{number}.png": GOOD for number in range(2)}, chunk_size=1)
    leases = Leases(database=bench.database, lease_s=2)
    chunks = [claim_next_chunk(database=bench.database, owner="test", lease_s=2, max_attempts=3) for _ in range(2)]

    with leases.holding(chunks[0]) as first, leases.holding(chunks[1]) as second:
        time.sleep(3)
        taken = claim_next_chunk(database=bench.database, owner="thief", lease_s=2, max_attempts=3)
        states = [first.state, second.state]
    leases.end()

    assert taken is None
    assert states == [Lease.HELD, Lease.HELD]


def test_the_heart_hears_of_a_cancellation_and_of_a_loss(bench):
    leases = Leases(database=bench.database, lease_s=60)
    states, seconds = [], []
    for disturb in (
        lambda job_id: cancel_job(database=bench.database, job_id=job_id),
        lambda _: _execute(bench, "UPDATE chunks SET lease_token = lease_token + 1"),
    ):
        job_id = bench.submit({"a.png": GOOD})
        chunk = claim_next_chunk(database=bench.database, owner="test", lease_s=2, max_attempts=3)
        with leases.holding(chunk) as held:
            disturb(job_id)
            began = time.monotonic()
            while held.state is Lease.HELD and time.monotonic() < began + 10:
                time.sleep(0.05)
            states.append(held.state)
            seconds.append(time.monotonic() - began)
    leases.end()

    assert states == [Lease.STOPPED, Lease.LOST]
    # A look each second, however long the lease.
    assert max(seconds) < 1.9
    assert not [thread for thread in threading.enumerate() if thread.name == "leases"]


def test_a_long_enumeration_is_told_of_so_that_no_second_worker_is_called(bench):
    request = JobRequest(source=Prefix(uri=bench.uri("lot")), params=bench.params(), model_version_id=1)
    job_id = submit_job(database=bench.database, queue=bench.queue, request=request, chunk_size=2)
    bench.queue.messages.clear()
    _execute(bench, "UPDATE jobs SET dispatched_at = now() - interval '1 hour'")

    with EnumerationWord(database=bench.database, job_id=job_id, interval_s=0.05):
        time.sleep(0.5)
    reconcile(database=bench.database, queue=bench.queue, resend_after_s=60, max_attempts=3)

    assert bench.queue.messages == []
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("enumeration-")]


def test_a_prefix_is_enumerated_and_worked_off_by_the_worker_itself(bench):
    for number in range(3):
        bench.storage.put(f"lot/images/{number}.png", GOOD + bytes(number), content_type="image/png")
        bench.storage.put(f"lot/labels/{number}.png", GOOD, content_type="image/png")
    with bench.database.transaction() as session:
        version_id = session.scalars(select(ModelVersion.id)).one()
    request = JobRequest(source=Prefix(uri=bench.uri("lot")), params=bench.params(), model_version_id=version_id)
    job_id = submit_job(database=bench.database, queue=bench.queue, request=request, chunk_size=2)

    bench.inspector.enumerate_job(job_id)
    bench.work(job_id)

    view = bench.view(job_id)
    assert (view.job.state, view.counts[ItemState.SUCCEEDED], view.qa.images) == (JobState.SUCCEEDED, 3, 3)


def _execute(bench, statement):
    with bench.database.transaction() as session:
        session.execute(text(statement))
