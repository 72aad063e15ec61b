"""An API process that is killed while a receiver takes its time: the event is sent again, under the same id."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

from defectoscope.client import verify_webhook
from defectoscope.webhooks.deliveries import list_deliveries, request_test
from defectoscope.webhooks.endpoints import register_webhook
from tests.receivers import receiving


@pytest.fixture
def receiver():
    with receiving() as receiver:
        yield receiver


@pytest.fixture
def environment(settings, receiver, tmp_path):
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
        "DEFECTOSCOPE_API__PORT": "0",
        "DEFECTOSCOPE_METRICS__API_PORT": "0",
        "DEFECTOSCOPE_WEBHOOKS__PORTS": str(receiver.port),
        "DEFECTOSCOPE_WEBHOOKS__HTTP_HOSTS": "127.0.0.1",
        "DEFECTOSCOPE_WEBHOOKS__PRIVATE_HOSTS": "127.0.0.1",
        "DEFECTOSCOPE_WEBHOOKS__INTERVAL_S": "0.1",
    }


@contextmanager
def api(environment):
    with subprocess.Popen([sys.executable, "-m", "api"], env=environment) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_until(is_so):
    ends_at = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < ends_at
        time.sleep(0.05)


def test_what_a_killed_process_was_sending_is_sent_by_the_next(environment, receiver, database):
    with database.transaction() as session:
        webhook = register_webhook(session, url=receiver.url(), kinds=["*"])
        request_test(session, webhook.webhook_id)

    def delivery():
        with database.transaction() as session:
            [view] = list_deliveries(session, webhook.webhook_id)
            return view.row

    receiver.may_answer.clear()
    with api(environment) as first:
        wait_until(lambda: receiver.requests)
        first.send_signal(signal.SIGKILL)
        first.wait()
    held = delivery()
    receiver.may_answer.set()
    with api(environment):
        # Its lease runs out: the time that passes is all that this stands for.
        with database.transaction() as session:
            session.connection().exec_driver_sql("UPDATE webhook_deliveries SET next_attempt_at = now()")
            session.connection().exec_driver_sql("UPDATE webhooks SET available_at = now()")
        wait_until(lambda: delivery().state == "delivered")

    events = [verify_webhook(request.body, request.headers, webhook.secret) for request in receiver.requests]
    assert (held.state, held.attempts, held.lease_expires_at is None) == ("pending", 1, False)
    assert delivery().attempts == 2
    assert len(events) == 2
    assert events[0] == events[1]
