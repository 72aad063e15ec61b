"""What a worker does with doorbells: passes them on while anything is owed, and rests when a server is away."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import select

from defectoscope.connect import open_queue
from defectoscope.database import Chunk, ChunkState
from defectoscope.inspection.chunks import claim_next_chunk
from defectoscope.inspection.sources import Prefix
from defectoscope.inspection.submission import JobRequest, submit_job
from defectoscope.queue import WAITING_DOORBELLS, make_celery, messages, ring_for_chunks
from tests.images import draw_part, encode
from worker.inspector import Inspector

IMAGES = {f"{seed}.png": encode(draw_part(height=256, width=256, seed=seed)[0], "PNG") for seed in range(3)}


@pytest.fixture
def waiting(settings):
    """Counts the doorbells that wait in the broker."""
    app = make_celery("test", broker_url=settings.queue.url.get_secret_value(), key_prefix=settings.queue.key_prefix)

    def count():
        with app.connection_for_read() as connection, connection.channel() as channel:
            return channel.queue_declare(messages.INSPECTION_QUEUE).message_count

    yield count
    app.pool.force_close_all()
    app.close()


def test_a_claim_passes_the_doorbell_on_and_one_that_finds_nothing_ends(bench, waiting):
    bench.submit(IMAGES, chunk_size=1)

    claimed, waited = [], []
    for _ in range(4):
        claimed.append(bench.inspector.process_next_chunk())
        waited.append(waiting())

    assert claimed == [True, True, True, False]
    assert waited == [1, 2, 3, 3]


def test_where_enough_doorbells_wait_none_is_added(bench, settings, waiting):
    bench.submit(IMAGES, chunk_size=1)
    ring_for_chunks(open_queue(settings, name="test"), chunks=60_000)

    bench.inspector.process_next_chunk()

    assert waiting() == WAITING_DOORBELLS


def test_an_enumeration_that_finds_no_image_still_rings_for_the_chunks_of_others(bench, waiting):
    request = JobRequest(source=Prefix(uri=bench.uri("empty")), params=bench.params(), model_version_id=1)
    job_id = submit_job(database=bench.database, queue=bench.queue, request=request, chunk_size=2)

    bench.inspector.enumerate_job(job_id)

    assert waiting() == 1


def test_a_worker_whose_storage_is_away_gives_the_chunk_back_and_then_rests_until_it_is_stopped(bench, settings):
    bench.submit(IMAGES, chunk_size=3)
    away = settings.model_copy(
        update={
            "storage": settings.storage.model_copy(update={"endpoint_url": "http://127.0.0.1:1"}),
            "worker": settings.worker.model_copy(update={"retry_pause_s": 600.0}),
        }
    )
    worker = Inspector(away)

    with ThreadPoolExecutor(1) as pool:
        turn = pool.submit(worker.process_next_chunk)
        taken_over = _claim_when_given_back(bench)
        rested = not turn.done()
        worker.request_stop()
        claimed = turn.result(timeout=60)
    worker.close()

    assert claimed
    assert rested
    assert (taken_over.token, bench.chunk(taken_over.chunk_id).attempts) == (2, 1)


def _claim_when_given_back(bench):
    """Claim the one chunk as soon as the worker, who claimed it first, has given it back."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        with bench.database.transaction() as session:
            (chunk,) = session.scalars(select(Chunk)).all()
        if chunk.lease_token == 1 and chunk.state is ChunkState.PENDING:
            return claim_next_chunk(database=bench.database, owner="another", lease_s=60, max_attempts=3)
        time.sleep(0.05)
    pytest.fail("the chunk was not given back")
