"""`python -m api` as a process: it serves, says no to a wrong setting, and ends when told to."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time

import httpx
import pytest
from sqlalchemy import make_url

from defectoscope.access.tokens import Token, read_token
from tests.tokens import bearer, make_token


@pytest.fixture
def port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


@pytest.fixture
def environment(settings, port, tmp_path):
    """What the process is told, and nothing of the machine's own settings."""
    storage = settings.storage
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("DEFECTOSCOPE_")},
        "DEFECTOSCOPE_CONNECTION_FILE": str(tmp_path / "absent.env"),
        "DEFECTOSCOPE_DATABASE__URL": settings.database.url.get_secret_value(),
        "DEFECTOSCOPE_QUEUE__URL": settings.queue.url.get_secret_value(),
        "DEFECTOSCOPE_STORAGE__ENDPOINT_URL": storage.endpoint_url,
        "DEFECTOSCOPE_STORAGE__ACCESS_KEY": storage.access_key,
        "DEFECTOSCOPE_STORAGE__SECRET_KEY": storage.secret_key.get_secret_value(),
        "DEFECTOSCOPE_STORAGE__BUCKET": storage.bucket,
        "DEFECTOSCOPE_API__PORT": str(port),
        "DEFECTOSCOPE_LOG__FORMAT": "json",
    }


def wait_for(url, process, *, timeout_s=40):
    ends_at = time.monotonic() + timeout_s
    while time.monotonic() < ends_at:
        try:
            return httpx.get(url)
        except httpx.TransportError:
            assert process.poll() is None, "the process has ended"
            time.sleep(0.1)
    raise AssertionError("the process does not answer")


def test_it_serves_until_it_is_told_to_end(environment, port, admin):
    with subprocess.Popen([sys.executable, "-m", "api"], env=environment, stdout=subprocess.PIPE) as process:
        try:
            ready = wait_for(f"http://127.0.0.1:{port}/readyz", process)
            jobs = httpx.get(f"http://127.0.0.1:{port}/v1/jobs", headers={**admin, "X-Request-Id": "r-6"})
            httpx.post(f"http://127.0.0.1:{port}/v1/jobs/1/cancel", headers={**admin, "X-Request-Id": "r-7"})
            process.send_signal(signal.SIGTERM)
            output, _ = process.communicate(timeout=10)
        finally:
            process.kill()

    assert ready.json()["status"] == "ready"
    assert jobs.json() == {"items": [], "next_cursor": None}
    # The server ends in order and then by the signal itself, so that whoever started it sees why.
    assert process.returncode == -signal.SIGTERM
    assert b"Application shutdown complete" in output
    # What was asked to be done is in the log, what was only looked at is not.
    assert b'"request_id": "r-7"' in output
    assert b'"request_id": "r-6"' not in output
    assert environment["DEFECTOSCOPE_STORAGE__SECRET_KEY"].encode() not in output


@pytest.mark.parametrize(
    ("change", "named"),
    [
        pytest.param({"DEFECTOSCOPE_API__HOST": "0.0.0.0"}, "DEFECTOSCOPE_API__ALLOW_REMOTE", id="open to all"),  # noqa: S104 -- refused
        pytest.param(
            {"DEFECTOSCOPE_API__ALLOW_REMOTE": "true", "DEFECTOSCOPE_API__REQUIRE_TOKEN": "false"},
            "DEFECTOSCOPE_API__REQUIRE_TOKEN",
            id="open to all without a token",
        ),
        pytest.param({"DEFECTOSCOPE_API__PORT": "http"}, "DEFECTOSCOPE_API__PORT", id="a port that is none"),
    ],
)
def test_it_refuses_a_wrong_setting_in_one_sentence(environment, change, named):
    ended = subprocess.run(
        [sys.executable, "-m", "api"], env={**environment, **change}, capture_output=True, text=True, check=False
    )

    assert ended.returncode == 2
    assert named in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_no_secret_is_in_the_log_nor_in_an_answer(environment, port, migrated_url):
    good, other, revoked = (make_token(migrated_url) for _ in range(3))
    url = f"http://127.0.0.1:{port}"
    chatty = {**environment, "DEFECTOSCOPE_LOG__LEVEL": "debug"}
    answers = []

    def call(method, path, token=good, **given):
        headers = {**bearer(token), **given.pop("headers", {})}
        answers.append(httpx.request(method, url + path, headers=headers, **given))
        return answers[-1]

    with subprocess.Popen([sys.executable, "-m", "api"], env=chatty, stdout=subprocess.PIPE) as process:
        try:
            wait_for(f"{url}/readyz", process)
            made = call("POST", "/v1/tokens", json={"name": "line-3", "scope": "viewer"}).json()["token"]
            answers.clear()
            call("POST", f"/v1/tokens/{read_token(revoked).id}/revoke")
            call("GET", "/v1/jobs", token=made)
            call("GET", "/v1/jobs", token=revoked)
            call("GET", "/v1/jobs", token=other[:-1] + ("0" if other[-1] != "0" else "1"))
            call("GET", "/v1/jobs", token=Token(999, read_token(other).secret).text)
            call("GET", f"/v1/datasets/{other}", params={"token": other})
            call("GET", f"/{other}")
            call("POST", f"/v1/jobs/{other}/cancel", headers={"X-Request-Id": other})
            call("POST", "/v1/jobs", content=other.encode())
            call("POST", "/v1/tokens", json={"name": other, "scope": other})
            call("POST", "/v1/jobs", headers={"Authorization": f"Basic {other}"})
            kept = call("GET", "/v1/audit").text
            process.send_signal(signal.SIGTERM)
            output, _ = process.communicate(timeout=10)
        finally:
            process.kill()

    secrets = [
        *(read_token(text).secret for text in (good, other, revoked, made)),
        environment["DEFECTOSCOPE_STORAGE__SECRET_KEY"],
        *(make_url(environment[f"DEFECTOSCOPE_{server}__URL"]).password for server in ("DATABASE", "QUEUE")),
    ]
    log = output.decode()
    said = "".join(answer.text + str(answer.headers) for answer in answers)
    assert log.count("http.request") >= len(answers)
    assert '"token_id": 1' in log
    assert [secret for secret in secrets if secret in log] == []
    assert [secret for secret in secrets if secret in said + kept] == []
