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


def test_it_serves_until_it_is_told_to_end(environment, port):
    with subprocess.Popen([sys.executable, "-m", "api"], env=environment, stdout=subprocess.PIPE) as process:
        try:
            ready = wait_for(f"http://127.0.0.1:{port}/readyz", process)
            jobs = httpx.get(f"http://127.0.0.1:{port}/v1/jobs", headers={"X-Request-Id": "r-6"})
            httpx.post(f"http://127.0.0.1:{port}/v1/jobs/1/cancel", headers={"X-Request-Id": "r-7"})
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
