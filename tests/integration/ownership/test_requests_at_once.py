"""Two requests under one idempotency key at the very same moment: the unique key alone makes one job of them."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text

from defectoscope.database import Job
from tests.integration.inspection.scene import Scene, add_model_version
from tests.integration.ownership.keys import without_unique_key

_WAIT = text("SELECT count(*) FROM pg_locks WHERE relation = 'jobs'::regclass AND NOT granted")


@pytest.fixture
def scene(database, queue):
    return Scene(database=database, queue=queue, model_version_id=add_model_version(database))


def _submit_at_once(scene):
    """Let two requests look for the key first, and only then write: reads pass this lock, and writes wait for it."""
    with ThreadPoolExecutor(2) as pool, scene.database.transaction() as session:
        session.execute(text("LOCK TABLE jobs IN SHARE MODE"))
        requests = [pool.submit(scene.submit, idempotency_key="order 1") for _ in range(2)]
        deadline = time.monotonic() + 15
        while session.scalar(_WAIT) < len(requests):
            assert time.monotonic() < deadline, "the requests do not come to their writes"
            time.sleep(0.01)
    return {request.result() for request in requests}


def test_two_requests_that_both_found_no_job_under_their_key_are_one_job(scene):
    jobs = _submit_at_once(scene)

    assert len(jobs) == scene.count(Job) == 1


def test_without_the_unique_key_they_are_two(scene, migrated_url):
    with without_unique_key(migrated_url, "jobs", "token_id, idempotency_key"):
        jobs = _submit_at_once(scene)

    assert len(jobs) == 2
