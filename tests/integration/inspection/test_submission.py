from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from sqlalchemy import update
from sqlalchemy.exc import IntegrityError

from defectoscope.database import Job, JobState
from defectoscope.errors.api import IdempotencyConflict, InvalidRequest
from defectoscope.errors.jobs import NoImagesFound
from defectoscope.inspection.sources import Archive, ExplicitImages, Prefix
from defectoscope.inspection.submission import JobRequest, submit_job
from defectoscope.queue import WAITING_DOORBELLS, CeleryQueue, make_celery, messages
from tests.integration.inspection.scene import PARAMS, named


def _explicit(*names):
    return ExplicitImages(images=tuple(named(name) for name in names))


def _submit(scene, source, *, queue=None, **changes):
    request = scene.request(source, **changes)
    return submit_job(database=scene.database, queue=queue or scene.queue, request=request, chunk_size=2)


def test_a_list_of_images_is_cut_into_chunks_and_a_doorbell_rings_for_each(scene):
    job_id = _submit(scene, _explicit("a", "b", "c", "d", "e"), name="lot 7")

    job = scene.job(job_id)
    owed = scene.owed(job_id)
    assert (job.state, job.name, job.source) == (JobState.RUNNING, "lot 7", {"kind": "images", "count": 5})
    assert job.enumerated_at is not None
    assert [item.name for item in scene.items(job_id)] == ["a", "b", "c", "d", "e"]
    assert [[item.name for item in scene.claim(chunk_id).items] for chunk_id in owed] == [["a", "b"], ["c", "d"], ["e"]]
    assert scene.queue.messages == [messages.process_next_chunk()] * len(owed)


def test_doorbells_are_few_however_many_chunks_there_are(scene):
    for prefix in "ab":
        scene.submit(images=100, chunk_size=1, prefix=prefix)

    assert scene.queue.messages == [messages.process_next_chunk()] * WAITING_DOORBELLS


@pytest.mark.parametrize(
    ("source", "described"),
    [
        (Prefix(uri="s3://b/p"), {"kind": "prefix", "uri": "s3://b/p", "labels_uri": None}),
        (Archive(uri="s3://b/a.zip"), {"kind": "archive", "uri": "s3://b/a.zip"}),
    ],
    ids=["prefix", "archive"],
)
def test_a_prefix_or_an_archive_waits_for_its_enumeration(scene, source, described):
    job_id = _submit(scene, source)

    job = scene.job(job_id)
    assert (job.state, job.source, job.enumerated_at) == (JobState.PENDING, described, None)
    assert scene.queue.messages == [messages.enumerate_job(job_id)]


@pytest.mark.parametrize(
    ("names", "error"),
    [
        pytest.param((), NoImagesFound, id="none"),
        pytest.param(("a", "b", "a"), InvalidRequest, id="twice"),
        pytest.param(("",), InvalidRequest, id="empty"),
        pytest.param(("a\0b",), InvalidRequest, id="null-character"),
        pytest.param(("ä" * 513,), InvalidRequest, id="overlong"),
    ],
)
def test_a_list_that_cannot_be_a_job_is_refused_and_leaves_nothing(scene, names, error):
    with pytest.raises(error):
        _submit(scene, _explicit(*names))

    assert scene.count(Job) == 0
    assert scene.queue.messages == []


def test_names_twice_are_found_quickly_in_a_long_list(scene):
    names = [f"{number % 50_000}" for number in range(100_000)]

    with pytest.raises(InvalidRequest) as caught:
        _submit(scene, _explicit(*names))

    assert caught.value.details["names"] == ["0", "1", "10", "100", "1000"]


def test_a_name_as_long_as_a_key_can_be_is_kept(scene):
    name = "".join(chr(0x4E00 + number * 7) for number in range(341))

    job_id = _submit(scene, _explicit(name))

    assert [item.name for item in scene.items(job_id)] == [name]


def test_a_repeated_request_under_its_key_is_the_same_job(scene):
    first = _submit(scene, _explicit("a", "b"), idempotency_key="order 1")
    sent = list(scene.queue.messages)

    again = _submit(scene, _explicit("a", "b"), idempotency_key="order 1")
    other_key = _submit(scene, _explicit("a", "b"), idempotency_key="order 2")

    assert again == first != other_key
    assert scene.queue.messages[: len(sent)] == sent
    assert len(scene.chunks(first)) == 1


def test_another_request_under_the_same_key_is_a_conflict(scene):
    first = _submit(scene, _explicit("a", "b"), idempotency_key="order 1")

    for source in (_explicit("a", "c"), _explicit("a"), Prefix(uri="s3://b/p")):
        with pytest.raises(IdempotencyConflict) as caught:
            _submit(scene, source, idempotency_key="order 1")
        assert caught.value.details["job_id"] == first

    assert scene.count(Job) == 1


def test_requests_under_one_key_at_the_same_moment_are_one_job(scene):
    callers = 6
    together = Barrier(callers)

    def submit(_):
        together.wait()
        return _submit(scene, _explicit("a", "b"), idempotency_key="order 1")

    with ThreadPoolExecutor(callers) as pool:
        jobs = set(pool.map(submit, range(callers)))

    assert len(jobs) == scene.count(Job) == 1
    assert len(scene.chunks(*jobs)) == 1
    assert len(scene.queue.messages) == 1


def test_without_tokens_a_key_is_everybodys(scene):
    _submit(scene, _explicit("a"), idempotency_key="order 1")
    other = scene.job(_submit(scene, _explicit("b")))
    second = update(Job).where(Job.id == other.id).values(idempotency_key="order 1")

    with scene.database.transaction() as session, pytest.raises(IntegrityError) as refused:
        session.execute(second)

    assert "uq_jobs_token_id_idempotency_key" in str(refused.value)


def test_a_request_without_a_key_that_breaks_a_rule_is_never_taken_for_another_job(scene):
    _submit(scene, _explicit("a"))
    request = JobRequest(source=_explicit("a"), params=PARAMS, model_version_id=1000)

    with pytest.raises(IntegrityError):
        submit_job(database=scene.database, queue=scene.queue, request=request, chunk_size=2)


def test_without_the_broker_a_job_is_recorded_and_the_reconciler_rings_later(scene):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        app = make_celery("test", broker_url=f"redis://127.0.0.1:{probe.getsockname()[1]}/0", key_prefix="x:")

    job_id = _submit(scene, _explicit("a"), queue=CeleryQueue(app))
    scene.reconcile()

    assert len(scene.owed(job_id)) == 1
    assert scene.queue.messages == [messages.process_next_chunk()]
    app.close()
