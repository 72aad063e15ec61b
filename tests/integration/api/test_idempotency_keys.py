"""Idempotency keys: a request that is repeated makes one job, and a key is known to the token that used it alone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from defectoscope.database import Job
from defectoscope.registry import promote
from tests.tokens import bearer, make_token


def code_of(answer):
    return answer.json()["error"]["code"]


@pytest.fixture
def send(client, bucket):
    """Submit a job of one image under a key with a certain token."""

    def submit(token, *, key, name="a.png"):
        source = {"kind": "images", "images": [{"name": name, "uri": f"s3://{bucket}/{name}"}]}
        return client.post("/v1/jobs", json={"source": source}, headers={"Idempotency-Key": key} | bearer(token))

    return submit


@pytest.fixture
def tokens(migrated_url):
    """The tokens of two programs that know nothing of each other."""
    return [make_token(migrated_url, name=name, scope="operator") for name in ("line-1", "line-2")]


def test_the_same_key_with_the_same_request_gives_the_same_job(submit, walk, model, bucket):
    images = {"a.png": f"s3://{bucket}/a.png"}
    first = submit(images, key="shift-7")

    second = submit(images, key="shift-7")

    assert (first.status_code, second.status_code) == (201, 200)
    assert second.json() == first.json()
    assert len(walk("/v1/jobs")) == 1


def test_a_repeated_request_gives_its_job_although_another_version_was_promoted(
    services, submit, model, publish_model, bucket
):
    images = {"a.png": f"s3://{bucket}/a.png"}
    first = submit(images, key="shift-7")
    promote(
        database=services.database, number=publish_model(threshold=0.9), actor="test", reason="stricter", figures={}
    )

    second = submit(images, key="shift-7")

    assert second.status_code == 200
    assert second.json() == first.json()


def test_requests_with_one_key_at_one_moment_are_one_job(submit, walk, model, bucket):
    images = {"a.png": f"s3://{bucket}/a.png"}

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: submit(images, key="shift-7"), range(8)))

    assert {answer.status_code for answer in answers} <= {200, 201}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert len(walk("/v1/jobs")) == 1


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"threshold": 0.75}, id="threshold"),
        pytest.param({"name": "day shift"}, id="name"),
        pytest.param({"model_version": 2}, id="model version"),
        pytest.param({"mm_per_px": 1.0}, id="pixel size"),
    ],
)
def test_the_same_key_with_another_request_is_a_conflict(submit, model, publish_model, bucket, change):
    publish_model()
    images = {"a.png": f"s3://{bucket}/a.png"}
    submit(images, key="shift-7")

    answer = submit(images, key="shift-7", **change)

    assert (answer.status_code, code_of(answer)) == (409, "idempotency_conflict")


def test_without_a_key_every_request_is_a_job_of_its_own(submit, walk, model, bucket):
    images = {"a.png": f"s3://{bucket}/a.png"}

    ids = [submit(images).json()["id"] for _ in range(2)]

    assert [job["id"] for job in walk("/v1/jobs")] == ids[::-1]


@pytest.mark.usefixtures("model")
def test_two_tokens_with_one_key_have_a_job_each_and_get_their_own_again(send, tokens, walk):
    first, second = (send(token, key="shift-7") for token in tokens)

    again = [send(token, key="shift-7") for token in tokens]

    assert [first.status_code, second.status_code] == [201, 201]
    assert [answer.status_code for answer in again] == [200, 200]
    assert [answer.json()["id"] for answer in again] == [first.json()["id"], second.json()["id"]]
    assert len(walk("/v1/jobs")) == 2


@pytest.mark.usefixtures("model")
def test_what_another_token_used_a_key_for_is_no_conflict_and_is_not_told(send, tokens):
    theirs = send(tokens[0], key="shift-7", name="a.png").json()
    mine = send(tokens[1], key="shift-7", name="b.png")

    refused = send(tokens[1], key="shift-7", name="c.png")

    assert mine.status_code == 201
    assert mine.json()["id"] != theirs["id"]
    assert (refused.status_code, code_of(refused)) == (409, "idempotency_conflict")
    assert refused.json()["error"]["details"]["job_id"] == mine.json()["id"]


@pytest.mark.usefixtures("model")
def test_two_tokens_that_race_with_one_key_have_one_job_each(send, tokens, services):
    callers = 4
    together = Barrier(2 * callers)

    def submit(token):
        together.wait()
        return send(token, key="shift-7")

    with ThreadPoolExecutor(2 * callers) as threads:
        answers = list(threads.map(submit, tokens * callers))

    found = [{answer.json()["id"] for answer in answers[number::2]} for number in range(2)]
    assert {answer.status_code for answer in answers} <= {200, 201}
    assert [len(ids) for ids in found] == [1, 1]
    with services.database.transaction() as session:
        jobs = [session.get_one(Job, ids.pop()) for ids in found]
        # The first token is the admin's.
        assert [job.token_id for job in jobs] == [2, 3]


@pytest.mark.usefixtures("model")
def test_a_job_from_before_there_were_tokens_is_given_to_none_of_them(send, tokens, services):
    old = send(tokens[0], key="shift-7").json()["id"]
    with services.database.transaction() as session:
        session.get_one(Job, old).token_id = None

    answers = [send(token, key="shift-7", name="b.png") for token in tokens]

    assert [answer.status_code for answer in answers] == [201, 201]
    assert old not in {answer.json()["id"] for answer in answers}
