"""`defectoscope webhooks` against a real API process and a real receiver."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from defectoscope.client import verify_webhook
from defectoscope.database.migrate import upgrade
from tests.integration.cli.conftest import _wait_until_ready, let_in
from tests.receivers import receiving


@pytest.fixture(scope="module")
def receiver():
    with receiving() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def line(environment, receiver, tmp_path_factory):
    """The command line of a system that is an API alone and may send to the receiver."""
    upgrade(environment["DEFECTOSCOPE_DATABASE__URL"])
    opened = {
        "DEFECTOSCOPE_WEBHOOKS__PORTS": str(receiver.port),
        "DEFECTOSCOPE_WEBHOOKS__HTTP_HOSTS": "127.0.0.1",
        "DEFECTOSCOPE_WEBHOOKS__PRIVATE_NETWORKS": "127.0.0.0/30",
        "DEFECTOSCOPE_WEBHOOKS__MAX_ATTEMPTS": "1",
    }
    log = tmp_path_factory.mktemp("webhooks") / "api.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "api"], env=environment | opened, stdout=file, stderr=subprocess.STDOUT
        )
    try:
        _wait_until_ready(environment["DEFECTOSCOPE_API__URL"], log)
        yield let_in(environment)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)


def test_a_webhook_from_its_creation_to_its_end(line, receiver):
    receiver.requests.clear()
    receiver.answers = [500, 204]

    created = line.run("webhooks", "create", receiver.url(), "--kind", "job.finished", "--kind", "model.*")
    secret = created.stdout.strip()
    webhook = line.ask("webhooks", "list", "--limit", "1")["items"][0]
    number = webhook["id"]
    failed = line.run("webhooks", "test", number)
    dead = line.ask("webhooks", "deliveries", number, "--state", "dead")["items"]
    again = line.run("webhooks", "redeliver", number)
    taken = line.ask("webhooks", "test", number)
    shown = line.run("webhooks", "show", number).stdout
    rotated = line.run("webhooks", "rotate", number)
    line.run("webhooks", "test", number)
    shown_later = line.run("webhooks", "show", number).stdout
    disabled = line.ask("webhooks", "disable", number)
    enabled = line.ask("webhooks", "enable", number)
    deleted = line.run("webhooks", "delete", number)
    gone = line.run("webhooks", "show", number)

    assert created.returncode == 0, created.stderr
    assert secret.startswith("whsec_")
    assert webhook["kinds"] == ["job.finished", "model.*"]
    assert failed.returncode == 1
    assert "The receiver answered 500." in failed.stdout
    assert [(item["kind"], item["attempts"]) for item in dead] == [("webhook.test", 1)]
    assert again.stdout == "1 dead delivery is owed again.\n"
    assert taken["state"] == "delivered"
    assert all(verify_webhook(request.body, request.headers, secret) for request in receiver.requests)
    assert receiver.url() in shown
    assert secret not in shown
    assert (rotated.stdout.strip() != secret, rotated.stdout.strip() in shown_later) == (True, False)
    assert "old secret until" in shown_later
    assert verify_webhook(receiver.requests[-1].body, receiver.requests[-1].headers, rotated.stdout.strip())
    assert (disabled["disabled_at"] is None, enabled["disabled_at"] is None) == (False, True)
    assert deleted.stdout == f"Webhook {number} is gone.\n"
    assert "(webhook_not_found)" in gone.stderr


def test_an_address_that_may_not_be_sent_to_is_refused_in_one_sentence(line):
    refused = line.run("webhooks", "create", "https://127.0.0.1:9/", "--kind", "*")

    assert refused.returncode == 1
    assert "Events are not sent to port 9" in refused.stderr
    assert "(webhook_address_refused)" in refused.stderr


def test_the_kinds_are_listed(line):
    assert "job.finished" in line.run("webhooks", "kinds").stdout
    assert line.run("webhooks", "list").stdout == "There is no webhook.\n"
