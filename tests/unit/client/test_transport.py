"""What the client does when the network or the server fails."""

from __future__ import annotations

import time

import pytest

from defectoscope.access.tokens import Token, make_secret
from defectoscope.client import Client
from defectoscope.errors import CallerError
from defectoscope.errors.access import TokenMalformed
from defectoscope.errors.api import ApiAnswerInvalid, ApiRefused, ApiUnavailable, InvalidRequest, TooManyRequests
from defectoscope.errors.installation import DatabaseUnavailable, Unexpected
from defectoscope.errors.jobs import JobNotFound
from tests.unit.client.conftest import RESET, Answer, refuse

JOB = {"id": 7, "state": "running"}


def test_a_refusal_is_the_error_that_the_server_raised(serve):
    server = serve(refuse(404, "job_not_found", "There is no job 7.", {"job_id": 7}))

    with Client(server.url) as client, pytest.raises(JobNotFound) as caught:
        client.jobs.get(7)

    assert caught.value.message == "There is no job 7."
    assert caught.value.details == {"job_id": 7, "request_id": "r-1"}


@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [
        pytest.param(409, ApiRefused, "moon_phase_wrong", id="caller"),
        pytest.param(500, Unexpected, "unexpected", id="fault"),
        pytest.param(503, ApiUnavailable, "api_unavailable", id="not now"),
    ],
)
def test_a_code_of_a_newer_server_keeps_its_message_and_its_branch(serve, status, kind, code):
    server = serve(refuse(status, "moon_phase_wrong", "The moon is wrong."))

    with Client(server.url) as client, pytest.raises(kind) as caught:
        client.jobs.cancel(7)

    assert caught.value.message == "The moon is wrong."
    assert caught.value.code == code


def test_the_code_of_one_refusal_does_not_stick_to_its_class():
    ApiRefused("Wrong.", server_code="moon_phase_wrong")

    assert ApiRefused.code == "api_refused"
    assert issubclass(ApiRefused, CallerError)


def test_details_that_are_named_like_parameters_do_no_harm(serve):
    details = {"message": "x", "server_code": "y", "job_id": 7}
    server = serve(refuse(404, "job_not_found", "There is no job 7.", details))

    with Client(server.url) as client, pytest.raises(JobNotFound, match="There is no job 7") as caught:
        client.jobs.get(7)

    assert caught.value.details["job_id"] == 7


def test_a_port_where_nobody_listens_is_said_at_once(closed_port):
    started = time.monotonic()

    with Client(closed_port) as client, pytest.raises(ApiUnavailable, match=closed_port):
        client.jobs.get(7)

    assert time.monotonic() - started < 1


@pytest.mark.parametrize(
    "failure",
    [
        pytest.param(refuse(503, "database_unavailable", "The database does not answer."), id="503"),
        pytest.param(RESET, id="reset"),
        pytest.param(Answer(502, b"<html>Bad gateway</html>"), id="proxy"),
    ],
)
def test_a_get_is_sent_again_after_a_failure_that_passes(serve, failure):
    server = serve(failure, Answer(200, JOB))

    with Client(server.url) as client:
        job = client.jobs.get(7)

    assert job == JOB
    assert len(server.seen) == 2


def test_a_get_is_given_up_after_a_few_attempts(serve, attempts):
    server = serve(refuse(503, "database_unavailable", "The database does not answer."))

    with Client(server.url) as client, pytest.raises(DatabaseUnavailable):
        client.jobs.get(7)

    assert len(server.seen) == attempts


def test_a_training_run_is_asked_for_once_whatever_happens(serve):
    server = serve(RESET, Answer(201, {"id": 1}))

    with Client(server.url) as client, pytest.raises(ApiUnavailable):
        client.training.start("steel", config={})

    assert len(server.seen) == 1


def test_a_submission_is_sent_again_under_the_same_random_key(serve):
    server = serve(RESET, Answer(201, JOB))

    with Client(server.url) as client:
        client.jobs.submit({"kind": "archive", "uri": "s3://line-3/batch.zip"})

    first, second = (seen.headers["idempotency-key"] for seen in server.seen)
    assert first == second
    assert len(first) > 20


def test_two_submissions_have_two_keys_and_a_given_key_is_kept(serve):
    server = serve(Answer(201, JOB))

    with Client(server.url) as client:
        for key in (None, None, "mine"):
            client.jobs.submit({"kind": "archive", "uri": "s3://line-3/batch.zip"}, idempotency_key=key)

    first, second, third = (seen.headers["idempotency-key"] for seen in server.seen)
    assert first != second
    assert third == "mine"


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(Answer(200, b"<html>Welcome to nginx</html>"), id="html"),
        pytest.param(Answer(200, b"[1, 2]"), id="list"),
        pytest.param(Answer(404, b"not here"), id="foreign 404"),
        pytest.param(Answer(422, {"detail": "something else"}), id="foreign error"),
    ],
)
def test_something_that_is_not_our_api_is_told_so(serve, answer):
    server = serve(answer)

    with Client(server.url) as client, pytest.raises(ApiAnswerInvalid, match="not as the Defectoscope API"):
        client.jobs.get(7)


def test_an_answer_that_does_not_come_is_unavailable(serve):
    # It accepts connections and never reads: the operating system does that for a listening socket.
    server = serve(Answer())
    server.shutdown()

    with Client(server.url, timeout_s=0.05) as client, pytest.raises(ApiUnavailable, match="in time"):
        client.jobs.get(7)


@pytest.mark.parametrize("url", ["", "127.0.0.1:8000", "ftp://host", "http://", "http://host:port"])
def test_an_address_that_is_none_is_refused(url):
    with pytest.raises(InvalidRequest, match="address"):
        Client(url)


def test_a_proxy_of_the_environment_is_not_asked_about_this_machine(serve, closed_port, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", closed_port)
    server = serve(Answer(200, JOB))

    with Client(server.url) as client:
        assert client.jobs.get(7) == JOB


def test_pages_are_asked_for_one_after_the_other_and_only_when_needed(serve):
    server = serve(
        Answer(200, {"items": [{"id": 1}, {"id": 2}], "next_cursor": "2"}),
        Answer(200, {"items": [{"id": 3}], "next_cursor": None}),
    )

    with Client(server.url) as client:
        defects = client.defects.list(job=5, min_area_px=None)
        first = next(defects)
        asked_for_first = len(server.seen)
        rest = list(defects)

    assert [first, *rest] == [{"id": 1}, {"id": 2}, {"id": 3}]
    assert asked_for_first == 1
    assert [seen.path for seen in server.seen] == [
        "/v1/defects?job=5&limit=1000",
        "/v1/defects?job=5&cursor=2&limit=1000",
    ]


def test_a_limit_ends_a_list(serve):
    server = serve(Answer(200, {"items": [{"id": 1}, {"id": 2}], "next_cursor": "2"}))

    with Client(server.url) as client:
        jobs = list(client.jobs.list(limit=2))

    assert jobs == [{"id": 1}, {"id": 2}]
    assert [seen.path for seen in server.seen] == ["/v1/jobs?limit=2"]


def test_readiness_is_reported_whatever_the_status_is(serve):
    server = serve(Answer(503, {"status": "unready", "checks": {"queue": "The queue does not answer."}}))

    with Client(server.url) as client:
        readiness = client.readiness()

    assert readiness["checks"] == {"queue": "The queue does not answer."}
    assert len(server.seen) == 1


def test_a_download_that_breaks_off_leaves_no_file(serve, tmp_path):
    server = serve(refuse(404, "object_not_found", "No overlay was kept."))
    target = tmp_path / "overlay.jpg"

    with Client(server.url) as client, pytest.raises(CallerError):
        client.results.download_overlay(1, target)

    assert list(tmp_path.iterdir()) == []


def test_a_token_is_sent_in_a_header_and_in_no_address(serve):
    token = Token(7, make_secret()).text
    server = serve(Answer(200, JOB))

    with Client(server.url, token=token) as client:
        client.jobs.get(7)

    [seen] = server.seen
    assert seen.headers["authorization"] == f"Bearer {token}"
    assert token not in seen.path


def test_without_a_token_no_such_header_is_sent(serve):
    server = serve(Answer(200, JOB))

    with Client(server.url) as client:
        client.jobs.get(7)

    assert "authorization" not in server.seen[0].headers


def test_a_mistyped_token_is_refused_before_anything_is_sent(closed_port):
    with pytest.raises(TokenMalformed):
        Client(closed_port, token="dsk_7_abc")


def test_a_token_does_not_follow_a_redirection(serve):
    elsewhere = serve(Answer(200, JOB))
    server = serve(Answer(307, headers={"Location": f"{elsewhere.url}/v1/jobs/7"}))

    with Client(server.url, token=Token(7, make_secret()).text) as client, pytest.raises(ApiAnswerInvalid):
        client.jobs.get(7)

    assert elsewhere.seen == []


def test_what_came_too_soon_is_sent_again_though_it_asks_for_a_change(serve):
    refusal = refuse(429, "too_many_requests", "Too many requests have come with this API token.")
    server = serve(Answer(refusal.status, refusal.body, {"Retry-After": "1"}), Answer(200, JOB))
    started = time.monotonic()

    with Client(server.url) as client:
        job = client.jobs.cancel(7)

    assert job["id"] == 7
    assert len(server.seen) == 2
    assert time.monotonic() - started >= 1


def test_what_keeps_coming_too_soon_is_said(serve, attempts):
    server = serve(refuse(429, "too_many_requests", "Too many requests have come with this API token."))

    with Client(server.url) as client, pytest.raises(TooManyRequests):
        client.jobs.cancel(7)

    assert len(server.seen) == attempts
