"""The receiver of the documentation, as a process: it takes what we send, once, and nothing else."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from defectoscope.webhooks.signature import new_secret

PAGE = Path(__file__).parents[3] / "docs" / "webhooks.md"


@pytest.fixture
def example(outbox):
    """The port that the receiver listens on, and its output once it was ended."""
    secret = new_secret()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    [code] = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    code = code.replace("whsec_…", secret).replace("8080", str(port))
    with subprocess.Popen(
        [sys.executable, "-u", "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:

        def end():
            process.kill()
            return process.stdout.read()

        try:
            wait_until_it_listens(port)
            yield secret, port, end
        finally:
            process.kill()


def wait_until_it_listens(port):
    ends_at = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            assert time.monotonic() < ends_at
            time.sleep(0.1)
        else:
            return


def test_the_receiver_of_the_documentation_works(example, receiver, outbox):
    secret, port, end = example
    webhook = outbox.register(receiver.url())
    outbox.change(webhook.webhook_id, secret=secret)
    outbox.happen()
    outbox.send()
    [request] = receiver.requests

    statuses = [
        httpx.post(f"http://127.0.0.1:{port}/", content=body, headers=request.headers).status_code
        for body in (request.body, request.body, request.body.replace(b"happened", b"hAppened"))
    ]

    assert statuses == [204, 204, 400]
    assert end() == "job.finished It happened.\n"
