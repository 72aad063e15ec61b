"""The outbox: owed with the event, sent by one at a time, tried again, given up, asked for again."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from threading import Event as Signal
from threading import Thread

import pytest
from sqlalchemy import func, text
from sqlalchemy.exc import DataError, IntegrityError

from defectoscope.client import verify_webhook
from defectoscope.database import DeliveryState, WebhookDelivery
from defectoscope.errors.webhooks import (
    TooManyWebhooks,
    WebhookDeliveryNotFound,
    WebhookDeliveryPending,
    WebhookDisabled,
    WebhookKindUnknown,
    WebhookNotFound,
)
from defectoscope.events import list_events, record_event
from defectoscope.webhooks.deliveries import redeliver, request_test
from defectoscope.webhooks.delivering import Outcome
from defectoscope.webhooks.endpoints import (
    MOST_WEBHOOKS,
    delete_webhook,
    disable_webhook,
    enable_webhook,
    list_webhooks,
    register_webhook,
)
from defectoscope.webhooks.outbox import (
    RetryPolicy,
    claim_delivery,
    end_delivered,
    end_failed,
    read_outbox,
    tidy_deliveries,
)
from tests.integration.webhooks.scene import RETRY

PATIENT = RetryPolicy(max_attempts=3, first_s=100, longest_s=1000)


@pytest.mark.parametrize(
    ("wanted", "owed"),
    [
        pytest.param(("job.finished",), 1, id="the kind"),
        pytest.param(("job.*",), 1, id="its family"),
        pytest.param(("*",), 1, id="everything"),
        pytest.param(("*", "job.*", "job.finished"), 1, id="all three"),
        pytest.param(("model.promoted", "model.*"), 0, id="others"),
    ],
)
def test_an_event_is_owed_to_who_wants_its_kind(outbox, receiver, wanted, owed):
    webhook = outbox.register(receiver.url(), *wanted)

    outbox.happen()

    assert len(outbox.deliveries(webhook.webhook_id)) == owed


def test_an_event_cannot_be_owed_to_a_webhook_twice(outbox, receiver):
    webhook = outbox.register(receiver.url())
    event_id = outbox.happen()

    with pytest.raises(IntegrityError), outbox.database.transaction() as session:
        session.add(WebhookDelivery(webhook_id=webhook.webhook_id, event_id=event_id))


def test_a_statement_that_fails_does_not_show_the_values_it_was_given(outbox):
    with pytest.raises(DataError) as caught, outbox.database.transaction() as session:
        session.execute(text("SELECT CAST(:secret AS text), 1 / 0"), {"secret": "whsec_of-a-test"})

    assert "of-a-test" not in str(caught.value)


def test_an_event_that_is_rolled_back_is_owed_to_nobody(outbox, receiver):
    webhook = outbox.register(receiver.url())

    with outbox.database.transaction() as session:
        record_event(session, kind="job.finished", subject="job:1", message="It happened.")
        session.rollback()

    with outbox.database.transaction() as session:
        assert list_events(session) == []
    assert outbox.deliveries(webhook.webhook_id) == []


def test_a_delivery_is_what_happened_signed_with_the_secret_of_its_webhook(outbox, receiver):
    webhook, other = outbox.register(receiver.url("/a")), outbox.register(receiver.url("/b"))
    event_id = outbox.happen(defects=3)

    outcomes = [outbox.send(), outbox.send(), outbox.send()]

    assert outcomes == [Outcome.DELIVERED, Outcome.DELIVERED, None]
    sent = {request.path: request for request in receiver.requests}
    for path, secret in {"/a": webhook.secret, "/b": other.secret}.items():
        event = verify_webhook(sent[path].body, sent[path].headers, secret)
        assert event["id"] == f"evt_{event_id}" == sent[path].headers["webhook-id"]
        assert event["data"]["details"] == {"defects": 3}
    [row] = outbox.deliveries(webhook.webhook_id)
    assert (row.state, row.attempts, row.last_status, row.last_error) == (DeliveryState.DELIVERED, 1, 204, None)
    assert row.finished_at is not None


def test_a_repetition_has_the_same_id_and_body_and_a_new_time(outbox, receiver):
    receiver.answers = [503, 204]
    outbox.register(receiver.url())
    outbox.happen()

    outcomes = [outbox.send(now=lambda: 1_795_000_000.9), outbox.send(now=lambda: 1_795_000_060)]

    first, second = receiver.requests
    assert outcomes == [Outcome.FAILED, Outcome.DELIVERED]
    assert (first.body, first.headers["webhook-id"]) == (second.body, second.headers["webhook-id"])
    assert [request.headers["webhook-timestamp"] for request in (first, second)] == ["1795000000", "1795000060"]


def test_the_last_attempt_that_fails_leaves_it_dead_until_somebody_asks(outbox, receiver):
    receiver.answers = [500, 500, 500, 204]
    webhook = outbox.register(receiver.url())
    outbox.happen()

    outcomes = [outbox.send() for _ in range(4)]

    assert outcomes == [Outcome.FAILED, Outcome.FAILED, Outcome.DEAD, None]
    [row] = outbox.deliveries(webhook.webhook_id)
    assert (row.state, row.attempts, row.last_status) == (DeliveryState.DEAD, 3, 500)
    assert row.last_error == "The receiver answered 500."
    with outbox.database.transaction() as session:
        assert redeliver(session, webhook.webhook_id) == 1
    assert outbox.send() is Outcome.DELIVERED
    assert outbox.deliveries(webhook.webhook_id)[0].attempts == 1


def test_a_webhook_that_fails_rests_and_the_others_go_on(outbox, receiver):
    receiver.answers = [500, 204]
    failing, other = outbox.register(receiver.url("/failing")), outbox.register(receiver.url("/other"))
    for _ in range(2):
        outbox.happen()

    outcomes = [outbox.send(retry=PATIENT) for _ in range(4)]

    assert outcomes == [Outcome.FAILED, Outcome.DELIVERED, Outcome.DELIVERED, None]
    assert outbox.states(failing.webhook_id) == ["pending", "pending"]
    assert outbox.states(other.webhook_id) == ["delivered", "delivered"]
    assert outbox.webhook(failing.webhook_id).failures == 1


def test_a_webhook_that_takes_something_again_is_sent_everything_without_a_rest(outbox, receiver):
    receiver.answers = [500, 204]
    webhook = outbox.register(receiver.url())
    for _ in range(3):
        outbox.happen()
    outbox.send(retry=PATIENT)

    outbox.change(webhook.webhook_id, available_at=func.now(), next_attempt_at=func.now())
    outcomes = [outbox.send(retry=PATIENT) for _ in range(4)]

    assert outcomes == [Outcome.DELIVERED] * 3 + [None]
    assert outbox.webhook(webhook.webhook_id).failures == 0


def test_the_rest_of_a_webhook_grows_to_five_minutes(outbox, receiver):
    webhook = outbox.register(receiver.url())
    outbox.happen()
    rests = []

    for _ in range(8):
        outbox.change(webhook.webhook_id, available_at=func.now(), next_attempt_at=func.now())
        claimed = claim_delivery(database=outbox.database, owner="test", lease_s=60)
        retry = RetryPolicy(max_attempts=100, first_s=10, longest_s=100)
        end_failed(database=outbox.database, claimed=claimed, retry=retry, error="It failed.", status=None)
        rests.append(outbox.webhook(webhook.webhook_id).available_at - datetime.now(UTC))

    assert [round(rest.total_seconds(), -1) for rest in rests] == [10, 30, 90, 270, 300, 300, 300, 300]


def test_one_delivery_of_a_webhook_is_in_work_at_a_time(outbox, receiver):
    webhook, other = outbox.register(receiver.url("/a")), outbox.register(receiver.url("/b"))
    for _ in range(2):
        outbox.happen()

    claims = [claim_delivery(database=outbox.database, owner="test", lease_s=60) for _ in range(3)]

    assert {claim.webhook_id for claim in claims[:2]} == {webhook.webhook_id, other.webhook_id}
    assert claims[2] is None


def test_many_senders_at_once_send_each_delivery_once(outbox, receiver):
    webhooks = [outbox.register(receiver.url(f"/{number}")) for number in range(4)]
    for _ in range(15):
        outbox.happen()

    def work():
        while any(state == "pending" for webhook in webhooks for state in outbox.states(webhook.webhook_id)):
            outbox.send()

    threads = [Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    sent = [(request.path, request.headers["webhook-id"]) for request in receiver.requests]
    assert len(sent) == len(set(sent)) == 60
    for number in range(4):
        ids = [int(message.removeprefix("evt_")) for path, message in sent if path == f"/{number}"]
        assert ids == sorted(ids)


def test_a_sender_whose_lease_ran_out_says_nothing_any_more(outbox, receiver):
    webhook = outbox.register(receiver.url())
    outbox.happen()
    late = claim_delivery(database=outbox.database, owner="late", lease_s=0)
    again = claim_delivery(database=outbox.database, owner="again", lease_s=60)

    said = (
        end_delivered(database=outbox.database, claimed=late, status=204),
        end_failed(database=outbox.database, claimed=late, retry=RETRY, error="It failed.", status=None),
    )

    assert said == (False, None)
    assert outbox.states(webhook.webhook_id) == ["pending"]
    assert end_delivered(database=outbox.database, claimed=again, status=204)
    assert outbox.states(webhook.webhook_id) == ["delivered"]


def test_a_sender_of_before_a_redelivery_says_nothing_any_more(outbox, receiver):
    webhook = outbox.register(receiver.url())
    outbox.happen()
    late = claim_delivery(database=outbox.database, owner="late", lease_s=0)
    tidy_deliveries(database=outbox.database, max_attempts=1, keep_days=30, dead_keep_days=90)
    with outbox.database.transaction() as session:
        redeliver(session, webhook.webhook_id)

    assert not end_delivered(database=outbox.database, claimed=late, status=204)
    assert outbox.states(webhook.webhook_id) == ["pending"]


def test_a_delivery_whose_every_sender_died_is_dead(outbox, receiver):
    webhook = outbox.register(receiver.url())
    outbox.happen()
    for _ in range(2):
        assert claim_delivery(database=outbox.database, owner="dies", lease_s=0) is not None
        tidy_deliveries(database=outbox.database, max_attempts=2, keep_days=30, dead_keep_days=90)

    [row] = outbox.deliveries(webhook.webhook_id)
    assert (row.state, row.attempts) == (DeliveryState.DEAD, 2)
    assert "stopped" in row.last_error


def test_a_delivery_in_its_last_attempt_is_not_given_up_under_its_sender(outbox, receiver):
    webhook = outbox.register(receiver.url())
    outbox.happen()
    claimed = claim_delivery(database=outbox.database, owner="lives", lease_s=60)

    tidy_deliveries(database=outbox.database, max_attempts=1, keep_days=30, dead_keep_days=90)

    assert end_delivered(database=outbox.database, claimed=claimed, status=204)
    assert outbox.states(webhook.webhook_id) == ["delivered"]


@pytest.mark.parametrize(("state", "days"), [("delivered", 30), ("dead", 90)], ids=["delivered", "dead"])
def test_a_record_of_what_is_over_is_kept_for_its_time(outbox, receiver, state, days):
    webhook = outbox.register(receiver.url())
    for _ in range(3):
        outbox.happen()
    old, young, owed = (row.id for row in outbox.deliveries(webhook.webhook_id))
    move = text("UPDATE webhook_deliveries SET state = :state, finished_at = now() - :age WHERE id = :id")
    with outbox.database.transaction() as session:
        session.execute(move, {"id": old, "state": state, "age": timedelta(days=days + 0.01)})
        session.execute(move, {"id": young, "state": state, "age": timedelta(days=days - 0.01)})

    tidy_deliveries(database=outbox.database, max_attempts=3, keep_days=30, dead_keep_days=90)

    assert {row.id for row in outbox.deliveries(webhook.webhook_id)} == {young, owed}


def test_an_address_that_may_no_longer_be_sent_to_is_a_failed_attempt(outbox, make_sender, receiver):
    webhook = outbox.register(receiver.url(host="receiver.test"))
    outbox.happen()
    outbox.sender = make_sender(resolver=lambda *_: ["169.254.169.254"])

    outcome = outbox.send()

    assert outcome is Outcome.FAILED
    assert "169.254.169.254" in outbox.deliveries(webhook.webhook_id)[0].last_error
    assert receiver.requests == []


def test_a_disabled_webhook_is_sent_nothing_and_owed_nothing_new(outbox, receiver):
    webhook = outbox.register(receiver.url())
    outbox.happen()
    with outbox.database.transaction() as session:
        disable_webhook(session, webhook.webhook_id)

    outbox.happen()

    assert outbox.send() is None
    with outbox.database.transaction() as session:
        assert read_outbox(session).pending == 0
        enable_webhook(session, webhook.webhook_id)
    assert [outbox.send(), outbox.send()] == [Outcome.DELIVERED, None]


def test_enabling_ends_the_rest_of_a_webhook(outbox, receiver):
    receiver.answers = [500, 204]
    webhook = outbox.register(receiver.url())
    for _ in range(2):
        outbox.happen()
    outbox.send(retry=PATIENT)

    with outbox.database.transaction() as session:
        disable_webhook(session, webhook.webhook_id)
        enable_webhook(session, webhook.webhook_id)

    assert outbox.send(retry=PATIENT) is Outcome.DELIVERED


def test_whoever_records_an_event_does_not_wait_for_a_webhook_that_is_being_deleted(outbox, receiver):
    deleted, kept = outbox.register(receiver.url("/deleted")), outbox.register(receiver.url("/kept"))
    may_commit, is_deleting = Signal(), Signal()

    def delete():
        with outbox.database.transaction() as session:
            session.execute(text("DELETE FROM webhooks WHERE id = :id"), {"id": deleted.webhook_id})
            is_deleting.set()
            may_commit.wait(10)

    thread = Thread(target=delete)
    thread.start()
    is_deleting.wait(10)
    began_s = time.monotonic()
    outbox.happen()
    took_s = time.monotonic() - began_s
    may_commit.set()
    thread.join()

    assert took_s < 1
    assert outbox.states(kept.webhook_id) == ["pending"]
    with outbox.database.transaction() as session:
        assert [view.row.id for view in list_webhooks(session)] == [kept.webhook_id]


@pytest.mark.parametrize("act", ["end", "redeliver"])
def test_a_deletion_waits_for_nobody_who_waits_for_it(outbox, receiver, act):
    webhook = outbox.register(receiver.url())
    outbox.happen()
    if act == "redeliver":
        outbox.send()
    claimed = claim_delivery(database=outbox.database, owner="test", lease_s=60)
    outcomes = []

    def run():
        if act == "end":
            outcomes.append(end_delivered(database=outbox.database, claimed=claimed, status=204))
            return
        try:
            with outbox.database.transaction() as session:
                redeliver(session, webhook.webhook_id, delivery_id=1)
        except WebhookNotFound as exc:
            outcomes.append(exc.code)

    thread = Thread(target=run)
    # What the deletion of a webhook does, with time for the other between its two steps.
    with outbox.database.transaction() as session:
        session.execute(text("SELECT FROM webhooks FOR UPDATE"))
        thread.start()
        _wait_for_a_waiting_statement(outbox.database)
        session.execute(text("DELETE FROM webhook_deliveries"))
        session.execute(text("DELETE FROM webhooks"))
    thread.join()

    assert outcomes == [False if act == "end" else "webhook_not_found"]


def _wait_for_a_waiting_statement(database):
    ends_at = time.monotonic() + 20
    waiting = text(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )
    while True:
        with database.transaction() as session:
            if session.scalar(waiting):
                return
        assert time.monotonic() < ends_at
        time.sleep(0.05)


def test_an_event_recorded_while_a_webhook_is_claimed_is_owed_to_it(outbox, receiver):
    webhook = outbox.register(receiver.url())
    outbox.happen()
    may_commit, is_claiming = Signal(), Signal()

    def claim():
        with outbox.database.transaction() as session:
            # What a claim locks, and how.
            session.execute(text("UPDATE webhooks SET available_at = now()"))
            is_claiming.set()
            may_commit.wait(10)

    thread = Thread(target=claim)
    thread.start()
    is_claiming.wait(10)
    outbox.happen()
    may_commit.set()
    thread.join()

    assert outbox.states(webhook.webhook_id) == ["pending", "pending"]


def test_a_deleted_webhook_is_gone_with_its_deliveries(outbox, receiver):
    webhook = outbox.register(receiver.url())
    outbox.happen()

    delete_webhook(database=outbox.database, webhook_id=webhook.webhook_id)

    assert outbox.send() is None
    with pytest.raises(WebhookNotFound):
        outbox.deliveries(webhook.webhook_id)
    with outbox.database.transaction() as session:
        assert session.execute(text("SELECT count(*) FROM webhook_deliveries")).scalar_one() == 0
        assert len(list_events(session)) == 1


def test_a_test_goes_to_its_webhook_alone_and_whatever_it_wants(outbox, receiver):
    tested = outbox.register(receiver.url("/tested"), "model.promoted")
    outbox.register(receiver.url("/other"))
    with outbox.database.transaction() as session:
        request_test(session, tested.webhook_id)

    outcomes = [outbox.send(), outbox.send()]

    [request] = receiver.requests
    assert outcomes == [Outcome.DELIVERED, None]
    assert request.path == "/tested"
    assert json.loads(request.body)["type"] == "webhook.test"


def test_a_disabled_webhook_is_not_tested(outbox, receiver):
    webhook = outbox.register(receiver.url())

    with outbox.database.transaction() as session:
        disable_webhook(session, webhook.webhook_id)
        with pytest.raises(WebhookDisabled):
            request_test(session, webhook.webhook_id)


def test_the_figures_say_how_much_is_owed_and_for_how_long(outbox, receiver):
    webhook = outbox.register(receiver.url())
    for _ in range(2):
        outbox.happen()
    outbox.change(webhook.webhook_id, created_at=datetime.now(UTC) - timedelta(minutes=10))

    with outbox.database.transaction() as session:
        figures = read_outbox(session)

    assert (figures.pending, figures.dead) == (2, 0)
    assert figures.oldest_pending_s == pytest.approx(600, abs=30)


def test_a_delivered_one_can_be_asked_for_and_a_pending_one_cannot(outbox, receiver):
    webhook = outbox.register(receiver.url())
    outbox.happen()
    [row] = outbox.deliveries(webhook.webhook_id)

    with outbox.database.transaction() as session, pytest.raises(WebhookDeliveryPending):
        redeliver(session, webhook.webhook_id, delivery_id=row.id)
    outbox.send()
    with outbox.database.transaction() as session:
        assert redeliver(session, webhook.webhook_id, delivery_id=row.id) == 1
        with pytest.raises(WebhookDeliveryNotFound):
            redeliver(session, webhook.webhook_id, delivery_id=row.id + 1)
    outbox.send()

    assert len({request.headers["webhook-id"] for request in receiver.requests}) == 1
    assert len(receiver.requests) == 2


def test_a_kind_that_never_happens_is_refused(outbox, receiver):
    with pytest.raises(WebhookKindUnknown):
        outbox.register(receiver.url(), "job.finished", "job.begun")


def test_there_can_be_so_many_webhooks_and_no_more(outbox, receiver):
    with outbox.database.transaction() as session:
        for _ in range(MOST_WEBHOOKS):
            register_webhook(session, url=receiver.url(), kinds=["*"])

    with pytest.raises(TooManyWebhooks):
        outbox.register(receiver.url())


def test_a_secret_is_in_no_text_that_could_be_logged(outbox, receiver):
    webhook = outbox.register(receiver.url("/token-in-path"))
    outbox.happen()

    claimed = claim_delivery(database=outbox.database, owner="test", lease_s=60)

    for value in (webhook, claimed, outbox.webhook(webhook.webhook_id)):
        assert webhook.secret not in repr(value)
        assert "token-in-path" not in repr(value)
