"""Webhooks through the API: registered, told of what happens by its own threads, looked at, asked again."""

from __future__ import annotations

import json
import time

import pytest

from api import metrics
from defectoscope.client import verify_webhook
from defectoscope.settings import WebhookSettings
from tests.receivers import receiving


@pytest.fixture
def receiver():
    with receiving() as receiver:
        yield receiver


@pytest.fixture
def api_settings(api_settings, receiver):
    """Settings under which the receiver of the test may be sent to, without pauses."""
    webhooks = WebhookSettings(
        interval_s=0.05,
        timeout_s=2,
        max_attempts=2,
        retry_first_s=0.01,
        ports=(receiver.port, 443),
        http_hosts=("127.0.0.1", "localhost"),
        private_hosts=("127.0.0.1",),
    )
    return api_settings.model_copy(update={"webhooks": webhooks})


@pytest.fixture
def register(client, receiver):
    def make(*kinds, path="/hook", **given):
        answer = client.post("/v1/webhooks", json={"url": receiver.url(path), "kinds": kinds or ["*"], **given})
        assert answer.status_code == 201, answer.text
        return answer.json()

    return make


@pytest.fixture
def wait_for(client):
    """Wait until the deliveries of a webhook, oldest first, are in these states, and return them."""

    def look(webhook_id, *states):
        ends_at = time.monotonic() + 20
        while True:
            items = client.get(f"/v1/webhooks/{webhook_id}/deliveries").json()["items"][::-1]
            if [item["state"] for item in items] == list(states):
                return items
            assert time.monotonic() < ends_at, items
            time.sleep(0.05)

    return look


def code_of(answer):
    return answer.json()["error"]["code"]


def test_a_job_that_ends_is_told_of(client, register, receiver, wait_for, inspected):
    made = register("job.finished")
    job_id, _ = inspected
    client.post(f"/v1/jobs/{job_id}/retry")

    client.post(f"/v1/jobs/{job_id}/cancel")

    [delivery] = wait_for(made["webhook"]["id"], "delivered")
    [request] = receiver.requests
    event = verify_webhook(request.body, request.headers, made["secret"])
    assert (event["id"], event["type"]) == (delivery["message_id"], "job.finished")
    assert event["data"]["subject"] == f"job:{job_id}" == delivery["subject"]
    assert event["data"]["details"]["state"] == client.get(f"/v1/jobs/{job_id}").json()["state"] == "cancelled"
    assert event["data"]["details"]["images"] == {"pending": 0, "succeeded": 4, "failed": 0, "cancelled": 1}


def test_a_webhook_of_a_receiver_that_is_gone_shows_that_it_is_disabled_and_why(client, register, wait_for, receiver):
    receiver.answers = [410]
    webhook_id = register()["webhook"]["id"]
    client.post(f"/v1/webhooks/{webhook_id}/test")

    wait_for(webhook_id, "dead")

    shown = client.get(f"/v1/webhooks/{webhook_id}").json()
    assert shown["disabled_at"] is not None
    assert shown["disabled_reason"] == "The receiver answered 410 Gone."


def test_a_new_secret_is_shown_once_and_the_old_one_goes_on_for_a_day(client, register):
    made = register()
    webhook_id = made["webhook"]["id"]

    rotated = client.post(f"/v1/webhooks/{webhook_id}/rotate").json()

    shown = client.get(f"/v1/webhooks/{webhook_id}")
    assert rotated["secret"] != made["secret"]
    assert rotated["webhook"] == shown.json()
    assert shown.json()["previous_secret_until"] is not None
    assert not {rotated["secret"], made["secret"]} & set(shown.text.split('"'))


def test_a_secret_is_shown_once_and_never_logged(client, register, wait_for, receiver, capfd):
    receiver.answers = [500]
    made = register(path="/hook?token=of-the-receiver")
    webhook_id = made["webhook"]["id"]
    client.post(f"/v1/webhooks/{webhook_id}/test")
    wait_for(webhook_id, "dead")

    later = [
        client.get("/v1/webhooks"),
        client.get(f"/v1/webhooks/{webhook_id}"),
        client.get(f"/v1/webhooks/{webhook_id}/deliveries"),
        client.post(f"/v1/webhooks/{webhook_id}/disable"),
        client.delete(f"/v1/webhooks/{webhook_id}"),
        client.get("/v1/events"),
    ]

    logged = "".join(capfd.readouterr())
    assert all(answer.status_code == 200 for answer in later)
    assert all(made["secret"] not in answer.text for answer in later)
    assert "webhook.not_delivered" in logged
    assert made["secret"] not in logged
    assert "of-the-receiver" not in logged


@pytest.mark.parametrize(
    ("url", "code"),
    [
        pytest.param("https://169.254.169.254/", "webhook_address_refused", id="credentials of a cloud"),
        pytest.param("https://10.0.0.1/", "webhook_address_refused", id="private"),
        pytest.param("https://2130706433/", "webhook_address_refused", id="decimal"),
        pytest.param("https://[::ffff:127.0.0.1]/", "webhook_address_refused", id="mapped"),
        pytest.param("http://example.com:443/", "webhook_address_refused", id="without TLS"),
        pytest.param("https://localhost/", "webhook_address_refused", id="a name that stands for loopback"),
        pytest.param("https://example.com:22/", "webhook_address_refused", id="another port"),
        pytest.param("https://name.that.is.invalid/", "webhook_address_refused", id="no such name"),
        pytest.param("file:///etc/passwd", "webhook_address_refused", id="a file"),
        pytest.param("https://example.com/\u00e9", "invalid_request", id="not ASCII"),
    ],
)
def test_an_address_that_may_not_be_sent_to_is_refused(client, url, code):
    answer = client.post("/v1/webhooks", json={"url": url, "kinds": ["*"]})

    assert (answer.status_code, code_of(answer)) == (422, code)
    assert client.get("/v1/webhooks").json()["items"] == []


def test_a_kind_that_never_happens_is_refused_with_those_that_do(client, receiver):
    answer = client.post("/v1/webhooks", json={"url": receiver.url(), "kinds": ["job.begun"]})

    assert code_of(answer) == "webhook_kind_unknown"
    known = {item["kind"] for item in client.get("/v1/webhooks/kinds").json()["items"]}
    assert {"job.finished", "model.promoted", "model.refused", "training.succeeded"} <= known
    assert "webhook.test" not in known


def test_a_dead_delivery_is_delivered_when_somebody_asks(client, register, receiver, wait_for):
    receiver.answers = [500, 500, 204]
    webhook_id = register()["webhook"]["id"]
    test = client.post(f"/v1/webhooks/{webhook_id}/test").json()
    [dead] = wait_for(webhook_id, "dead")
    assert client.get(f"/v1/webhooks/{webhook_id}").json()["dead"] == 1

    answer = client.post(f"/v1/webhooks/{webhook_id}/redeliver").json()

    [delivered] = wait_for(webhook_id, "delivered")
    assert answer == {"redelivered": 1}
    assert (dead["id"], dead["attempts"], dead["status"]) == (test["id"], 2, 500)
    assert delivered["next_attempt_at"] is None
    assert len({json.loads(request.body)["id"] for request in receiver.requests}) == 1


def test_one_delivery_can_be_asked_for_again(client, register, receiver, wait_for):
    webhook_id = register()["webhook"]["id"]
    client.post(f"/v1/webhooks/{webhook_id}/test")
    [delivered] = wait_for(webhook_id, "delivered")
    path = f"/v1/webhooks/{webhook_id}/deliveries/{delivered['id']}"

    answer = client.post(f"{path}/redeliver")

    assert (answer.status_code, answer.json()["id"]) == (200, delivered["id"])
    wait_for(webhook_id, "delivered")
    assert len(receiver.requests) == 2
    assert client.get(path).json()["state"] == "delivered"


def test_a_webhook_is_disabled_enabled_and_deleted(client, register, receiver, wait_for):
    webhook_id = register()["webhook"]["id"]

    disabled = client.post(f"/v1/webhooks/{webhook_id}/disable").json()
    refused = client.post(f"/v1/webhooks/{webhook_id}/test")
    enabled = client.post(f"/v1/webhooks/{webhook_id}/enable").json()
    was = client.delete(f"/v1/webhooks/{webhook_id}").json()
    gone = client.get(f"/v1/webhooks/{webhook_id}")

    assert disabled["disabled_at"] is not None
    assert (refused.status_code, code_of(refused)) == (409, "webhook_disabled")
    assert enabled["disabled_at"] is None
    assert was["id"] == webhook_id
    assert (gone.status_code, code_of(gone)) == (404, "webhook_not_found")


def test_lists_are_paged(client, register, walk):
    ids = [register()["webhook"]["id"] for _ in range(3)]
    for _ in range(3):
        client.post(f"/v1/webhooks/{ids[0]}/test")

    assert [item["id"] for item in walk("/v1/webhooks", limit=1)] == ids[::-1]
    assert len(walk(f"/v1/webhooks/{ids[0]}/deliveries", limit=2)) == 3
    assert walk(f"/v1/webhooks/{ids[1]}/deliveries") == []


def test_a_receiver_that_takes_its_time_holds_up_no_request_and_no_other_webhook(client, register, receiver, wait_for):
    slow, quick = register(path="/slow")["webhook"]["id"], register(path="/quick")["webhook"]["id"]
    receiver.may_answer.clear()
    for webhook_id in (slow, quick):
        client.post(f"/v1/webhooks/{webhook_id}/test")

    # Both are sent while neither is answered, and the API goes on.
    while len(receiver.requests) < 2:
        time.sleep(0.02)
    began_s = time.monotonic()
    jobs = client.get("/v1/jobs")
    took_s = time.monotonic() - began_s
    receiver.may_answer.set()

    assert (jobs.status_code, took_s < 1) == (200, True)
    for webhook_id in (slow, quick):
        wait_for(webhook_id, "delivered")


def test_the_figures_count_attempts_and_what_is_owed(client, services, register, receiver, wait_for):
    def count(outcome):
        return metrics.webhook_attempts_total.labels(outcome)._value.get()

    before = {outcome: count(outcome) for outcome in ("delivered", "failed", "dead")}
    receiver.answers = [500]
    webhook_id = register()["webhook"]["id"]
    client.post(f"/v1/webhooks/{webhook_id}/test")
    wait_for(webhook_id, "dead")

    with services.database.transaction() as session:
        figures = {(family.name, labels): value for family, labels, value in metrics.read_figures(session)}

    assert figures["defectoscope_webhook_deliveries", ("dead",)] == 1
    assert figures["defectoscope_webhook_oldest_pending_seconds", ()] == 0
    assert {outcome: count(outcome) - before[outcome] for outcome in before} == {"delivered": 0, "failed": 1, "dead": 1}
