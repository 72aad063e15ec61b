"""What a receiver may answer beyond yes and no, and how its secret is changed without a gap."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from defectoscope.client import verify_webhook
from defectoscope.errors.webhooks import WebhookNotFound, WebhookSignatureInvalid
from defectoscope.webhooks.deliveries import redeliver
from defectoscope.webhooks.delivering import Outcome
from defectoscope.webhooks.endpoints import enable_webhook, rotate_secret
from defectoscope.webhooks.outbox import RetryPolicy, tidy_deliveries

#: Rests shorter than what receivers ask for below.
BRIEF = RetryPolicy(max_attempts=3, first_s=1, longest_s=1)


def rotate(outbox, webhook_id):
    with outbox.database.transaction() as session:
        return rotate_secret(session, webhook_id).secret


def takes(request, secret):
    try:
        verify_webhook(request.body, request.headers, secret)
    except WebhookSignatureInvalid:
        return False
    return True


def test_a_receiver_that_is_gone_is_sent_nothing_more_and_the_webhook_says_why(outbox, receiver):
    receiver.answers = [410, 204]
    webhook_id = outbox.register(receiver.url()).webhook_id
    outbox.happen()
    outbox.happen()

    outcomes = [outbox.send(), outbox.send()]
    outbox.happen()

    row = outbox.webhook(webhook_id)
    assert outcomes == [Outcome.DEAD, None]
    assert row.disabled_at is not None
    assert row.disabled_reason == "The receiver answered 410 Gone."
    assert outbox.states(webhook_id) == ["dead", "pending"]
    assert len(receiver.requests) == 1


def test_a_webhook_that_was_gone_is_enabled_again_and_gets_what_it_is_owed(outbox, receiver):
    receiver.answers = [410, 204]
    webhook_id = outbox.register(receiver.url()).webhook_id
    outbox.happen()
    outbox.send()

    with outbox.database.transaction() as session:
        enable_webhook(session, webhook_id)
        redeliver(session, webhook_id)

    assert outbox.send() is Outcome.DELIVERED
    row = outbox.webhook(webhook_id)
    assert (row.disabled_at, row.disabled_reason) == (None, None)


@pytest.mark.parametrize(
    ("status", "asked", "rest_s"),
    [
        pytest.param(429, "120", 120, id="too many requests"),
        pytest.param(503, "600", 600, id="longer than a webhook usually rests"),
        pytest.param(503, "999999999", 24 * 3600, id="more than a day"),
        pytest.param(503, "0", 1, id="at once"),
        pytest.param(503, "Wed, 25 Nov 2026 03:00:00 GMT", 1, id="a date"),
        pytest.param(503, "-5", 1, id="a negative number"),
        pytest.param(503, "9" * 400, 1, id="a number beyond all"),
    ],
)
def test_a_receiver_is_left_alone_for_as_long_as_it_asks_up_to_a_day(outbox, receiver, status, asked, rest_s):
    receiver.answers = [(status, {"Retry-After": asked}), 204]
    webhook_id = outbox.register(receiver.url()).webhook_id
    outbox.happen()
    outbox.happen()
    began = datetime.now(UTC)

    outcome = outbox.send(retry=BRIEF)

    first = outbox.deliveries(webhook_id)[0]
    rests = outbox.webhook(webhook_id).available_at - began
    waits = first.next_attempt_at - began
    assert (outcome, first.state.value, first.attempts) == (Outcome.FAILED, "pending", 1)
    assert timedelta(seconds=rest_s) <= rests < timedelta(seconds=rest_s + 10)
    assert timedelta(seconds=0.75 * rest_s) <= waits < timedelta(seconds=rest_s + 10)
    assert outbox.send(retry=BRIEF) is None or rest_s == 1


def test_for_a_day_a_delivery_is_signed_with_the_new_secret_and_the_old_one(outbox, receiver):
    made = outbox.register(receiver.url())
    new = rotate(outbox, made.webhook_id)
    outbox.happen()
    outbox.send()

    outbox.change(made.webhook_id, previous_secret_until=datetime.now(UTC) - timedelta(seconds=1))
    outbox.happen()
    outbox.send()

    within, after = receiver.requests
    assert new != made.secret
    assert len(within.headers["webhook-signature"].split(" ")) == 2
    assert [takes(within, secret) for secret in (new, made.secret)] == [True, True]
    assert [takes(after, secret) for secret in (new, made.secret)] == [True, False]


def test_a_second_rotation_within_the_day_ends_the_first_secret(outbox, receiver):
    made = outbox.register(receiver.url())
    second = rotate(outbox, made.webhook_id)
    third = rotate(outbox, made.webhook_id)
    outbox.happen()

    outbox.send()

    [request] = receiver.requests
    assert [takes(request, secret) for secret in (made.secret, second, third)] == [False, True, True]


def test_an_old_secret_ends_after_a_day_and_leaves_the_database(outbox, receiver):
    made = outbox.register(receiver.url())
    began = datetime.now(UTC)
    new = rotate(outbox, made.webhook_id)
    row = outbox.webhook(made.webhook_id)
    until, kept = row.previous_secret_until, row.previous_secret
    tidy = {"database": outbox.database, "max_attempts": 3, "keep_days": 30, "dead_keep_days": 90}
    tidy_deliveries(**tidy)
    still = outbox.webhook(made.webhook_id).previous_secret

    outbox.change(made.webhook_id, previous_secret_until=began - timedelta(seconds=1))
    tidy_deliveries(**tidy)

    row = outbox.webhook(made.webhook_id)
    assert timedelta(hours=23) < until - began < timedelta(hours=25)
    assert kept == still == made.secret
    assert (row.secret, row.previous_secret, row.previous_secret_until) == (new, None, None)


def test_what_is_not_there_has_no_secret_to_rotate(outbox):
    with pytest.raises(WebhookNotFound):
        rotate(outbox, 99)
