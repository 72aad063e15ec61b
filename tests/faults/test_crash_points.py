"""Every crash point kills a real process once; whoever comes next finishes, and nobody can tell."""

from __future__ import annotations

import socket
import time

import httpx
import numpy as np
import pytest
from sqlalchemy import select, text

from defectoscope.crash_points import VARIABLE, CrashPoint
from defectoscope.database import Champion, Chunk, ChunkState, Job, LedgerAction, ModelVersion, Promotion
from defectoscope.inspection.chunks import claim_next_chunk
from defectoscope.queue import CeleryQueue, MemoryQueue, make_celery
from defectoscope.registry import find_champion, promote, request_import
from tests.faults.checker import count_orphans, find_flaws, find_missing_masks, read_outcomes
from tests.faults.crash import Crasher
from tests.images import draw_part, encode
from tests.integration.worker.bench import Bench
from tests.models import expect_mask, put_in_service
from tests.tokens import bearer, make_token
from worker.inspector import Inspector

OF_A_CHUNK = (
    CrashPoint.CHUNK_CLAIMED,
    CrashPoint.DOORBELL_PASSED_ON,
    CrashPoint.IMAGE_FETCHED,
    CrashPoint.IMAGE_KEPT,
    CrashPoint.IMAGE_SEGMENTED,
    CrashPoint.MASK_STORED,
    CrashPoint.CHUNK_INSPECTED,
    CrashPoint.CHUNK_CLOSED,
    CrashPoint.RESULTS_WRITTEN,
    CrashPoint.COMPLETION_WRITTEN,
    CrashPoint.CHUNK_COMMITTED,
)
OF_A_VERSION = (CrashPoint.VERSION_STORED, CrashPoint.VERSION_PUBLISHED)
OF_A_DECISION = (CrashPoint.DECISION_WRITTEN, CrashPoint.CHAMPION_WRITTEN)
PARTS = {f"part-{seed}.png": draw_part(height=256, width=256, seed=seed)[0] for seed in range(8)}
#: Beside images in a chunk: one that held nothing but this file would end without passing every point.
FILES = {"words.png": b"words"} | {name: encode(pixels, "PNG") for name, pixels in PARTS.items()}
DECISION = {"actor": "ann", "reason": "the second"}
LEASE_S = 2


@pytest.fixture
def settings(settings):
    return settings.model_copy(update={"inspection": settings.inspection.model_copy(update={"lease_s": LEASE_S})})


@pytest.fixture
def broker(settings):
    """The real queue, to ring as beat does."""
    url = settings.queue.url.get_secret_value()
    app = make_celery("test", broker_url=url, key_prefix=settings.queue.key_prefix)
    yield CeleryQueue(app)
    app.pool.force_close_all()
    app.close()


@pytest.fixture
def crasher(settings, tmp_path):
    crasher = Crasher(settings=settings, directory=tmp_path)
    yield crasher
    crasher.end()


@pytest.fixture
def bench(settings, database, storage, tmp_path):
    """The second worker, in this process."""
    inspector = Inspector(settings)
    bench = Bench(settings=settings, database=database, queue=MemoryQueue(), storage=storage, inspector=inspector)
    bench.put_model_in_service(tmp_path)
    yield bench
    inspector.close()


def _finish(bench, job_id):
    """What beat and a worker do, until the job has ended."""
    deadline = time.monotonic() + 30
    while not bench.job(job_id).state.is_final:
        bench.inspector.reconcile()
        if not bench.inspector.process_next_chunk():
            time.sleep(0.1)
        assert time.monotonic() < deadline, "the job did not end"


def _set_key(bench, job_id):
    with bench.database.transaction() as session:
        session.get_one(Job, job_id).idempotency_key = "a"


def _see_that_all_is_well(bench, job_id):
    assert find_flaws(bench.database) == {}
    assert find_missing_masks(bench.database, bench.storage) == set()
    assert count_orphans(bench.database, bench.storage) == 0
    outcomes = read_outcomes(bench.database)
    assert len(outcomes) == len(FILES)
    assert outcomes["a", "words.png"][:2] == ("failed", "image_not_recognised")
    for name, (result, _) in bench.results(job_id).items():
        assert np.array_equal(bench.mask(result), expect_mask(PARTS[name]))


@pytest.mark.parametrize("point", OF_A_CHUNK)
def test_a_worker_that_dies_between_two_steps_of_a_chunk_leaves_nothing_undone_or_done_twice(
    bench, crasher, broker, point
):
    job_id = bench.submit(FILES)
    _set_key(bench, job_id)
    chunks = len(bench.owed(job_id))

    crasher.wait_for_death(crasher.start_worker(point), point, queue=broker)
    owed_then = len(bench.owed(job_id))
    _finish(bench, job_id)

    # Two chunks may be at the same point at once; what is committed before it is committed.
    assert owed_then >= chunks - 2 if point is CrashPoint.CHUNK_COMMITTED else owed_then == chunks
    _see_that_all_is_well(bench, job_id)


def test_a_reconciler_that_dies_while_it_splits_a_chunk_leaves_it_whole(bench, crasher, broker):
    job_id = bench.submit(FILES)
    _set_key(bench, job_id)
    chunks = len(bench.owed(job_id))
    for _ in range(2):
        # A worker that is lost with it, twice.
        with bench.database.transaction() as session:
            session.execute(
                text("UPDATE chunks SET lease_expires_at = now() - interval '1 hour' WHERE state = 'running'")
            )
        assert claim_next_chunk(database=bench.database, owner="lost", lease_s=60, max_attempts=3) is not None
    with bench.database.transaction() as session:
        session.execute(text("UPDATE chunks SET lease_expires_at = now() - interval '1 hour' WHERE state = 'running'"))

    point = CrashPoint.CHUNK_SPLIT
    crasher.wait_for_death(crasher.start_worker(point), point, queue=broker)
    with bench.database.transaction() as session:
        split_then = session.scalars(select(Chunk.id).where(Chunk.state == ChunkState.SPLIT)).all()
    _finish(bench, job_id)

    assert split_then == []
    assert chunks > 1
    _see_that_all_is_well(bench, job_id)


def _serve(crasher, point):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = crasher.start(point, "-m", "api", DEFECTOSCOPE_API__PORT=str(port))
    url = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 60
    while True:
        try:
            if httpx.get(f"{url}/healthz", trust_env=False).is_success:
                return process, url
        except httpx.TransportError:
            assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "the API did not answer"
        time.sleep(0.1)


def _post_and_die(crasher, point, path, body, headers):
    process, url = _serve(crasher, point)
    with pytest.raises(httpx.TransportError):
        httpx.post(f"{url}{path}", json=body, headers=headers, timeout=30, trust_env=False)
    crasher.see_death(process, point)


def _login(crasher):
    return bearer(make_token(crasher.settings.database.url.get_secret_value()))


def _post(crasher, path, body, headers):
    process, url = _serve(crasher, None)
    response = httpx.post(f"{url}{path}", json=body, headers=headers, timeout=30, trust_env=False)
    process.terminate()
    process.communicate(timeout=20)
    return response


def test_an_api_that_dies_after_the_commit_of_a_job_has_taken_it_once(bench, crasher):
    for name, data in FILES.items():
        bench.storage.put(f"in/{name}", data, content_type="image/png")
    images = [{"name": name, "uri": bench.uri(f"in/{name}")} for name in FILES]
    body = {"source": {"kind": "images", "images": images}}
    # A key belongs to the token that sends it.
    headers = {"Idempotency-Key": "a", **_login(crasher)}

    _post_and_die(crasher, CrashPoint.EFFECTS_OWED, "/v1/jobs", body, headers)
    again = _post(crasher, "/v1/jobs", body, headers)
    _finish(bench, again.json()["id"])

    assert (again.status_code, again.json()["id"]) == (200, 1)
    _see_that_all_is_well(bench, 1)


@pytest.mark.parametrize("point", OF_A_DECISION)
def test_a_promotion_that_dies_before_its_commit_has_not_happened(bench, crasher, tmp_path, point):
    database, storage = bench.database, bench.storage
    put_in_service(database=database, storage=storage, directory=tmp_path)
    promote(database=database, number=1, actor="test", reason="the first again", figures={})
    with database.transaction() as session:
        lines = len(session.scalars(select(Promotion)).all())

    headers = _login(crasher)
    _post_and_die(crasher, point, "/v1/models/2/promote", DECISION, headers)
    with database.transaction() as session:
        champion_then = find_champion(session).number
        lines_then = len(session.scalars(select(Promotion)).all())
    again = _post(crasher, "/v1/models/2/promote", DECISION, headers)

    assert (champion_then, lines_then) == (1, lines)
    assert again.status_code == 200, again.text
    with database.transaction() as session:
        assert find_champion(session).number == 2
        assert len(session.scalars(select(Promotion)).all()) == lines + 1
        assert len(session.scalars(select(Champion)).all()) == 1


@pytest.mark.parametrize("point", OF_A_VERSION)
def test_a_publication_that_dies_leaves_a_whole_version_or_none(crasher, database, storage, point):
    with database.transaction() as session:
        request_import(session, MemoryQueue(), key="a", sha256="ab" * 32, file_name="a.onnx", options={}, actor="ann")

    first = crasher.start(point, "-m", "tests.faults.publish_once")
    crasher.see_death(first, point)
    with database.transaction() as session:
        versions_then = session.scalars(select(ModelVersion.number)).all()
    second = crasher.start(None, "-m", "tests.faults.publish_once")
    output, _ = second.communicate(timeout=60)

    assert versions_then == ([1] if point is CrashPoint.VERSION_PUBLISHED else [])
    assert second.returncode == 0, output
    with database.transaction() as session:
        assert session.scalars(select(ModelVersion.number)).all() == [1]
        keys = session.scalars(text("SELECT key FROM model_variants")).all()
        lines = session.scalars(select(Promotion.action)).all()
    assert all(storage.exists(key) for key in keys)
    assert lines == [LedgerAction.IMPORTED]


def test_every_crash_point_is_killed_by_a_test_of_this_file():
    covered = {*OF_A_CHUNK, *OF_A_VERSION, *OF_A_DECISION, CrashPoint.CHUNK_SPLIT, CrashPoint.EFFECTS_OWED}

    assert covered == set(CrashPoint)


def test_a_point_that_does_not_exist_is_refused_in_one_sentence(crasher):
    process = crasher.start(None, "-m", "api", **{VARIABLE: "image.lost"})

    output, _ = process.communicate(timeout=60)

    assert process.returncode == 2
    assert "names no crash point" in output
