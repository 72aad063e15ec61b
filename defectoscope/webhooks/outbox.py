"""The outbox: deliveries claimed under a lease, ended under its token, owed again later, given up.

Whose turn it is, is decided in SQL, as it is for chunks. One delivery of a webhook is in work at a time, whoever sends:
so a receiver that is slow keeps one thread busy, and one that fails keeps none, because it rests.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import random
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session

from defectoscope.database import Database, DeliveryState
from defectoscope.webhooks.messages import EventFacts

#: Each pause is so many times as long as the one before.
_GROWTH = 3.0
#: A webhook that fails rests no longer than this, so that it is not noticed late that its receiver is back.
_LONGEST_REST_S = 300.0
#: A receiver that asks for more than this is asked again before.
_LONGEST_ASKED_S = 24 * 3600.0
#: What a receiver answers that wants no events any more.
_GONE = 410
#: Rows that one transaction deletes.
_DELETED_AT_ONCE = 1000

# `available_at` is moved by each claim and looked at again once the row is locked, so that two senders never have two
# deliveries of one webhook. The lock leaves the key of the row alone: an event that is written meanwhile is owed to it.
_CLAIM = text("""
    WITH turn AS MATERIALIZED (
        SELECT webhooks.id FROM webhooks
        WHERE webhooks.disabled_at IS NULL AND webhooks.available_at <= now() AND EXISTS (
            SELECT FROM webhook_deliveries AS owed
            WHERE owed.webhook_id = webhooks.id AND owed.state = 'pending' AND owed.next_attempt_at <= now()
        )
        ORDER BY webhooks.available_at LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED
    ), next AS MATERIALIZED (
        SELECT owed.id, owed.webhook_id FROM turn JOIN webhook_deliveries AS owed ON owed.webhook_id = turn.id
        WHERE owed.state = 'pending' AND owed.next_attempt_at <= now()
        ORDER BY owed.next_attempt_at, owed.id LIMIT 1 FOR UPDATE OF owed SKIP LOCKED
    ), taken AS (
        UPDATE webhooks SET available_at = now() + make_interval(secs => :lease_s) FROM next
        WHERE webhooks.id = next.webhook_id
        RETURNING webhooks.id, webhooks.url, webhooks.secret,
            CASE WHEN webhooks.previous_secret_until > now() THEN webhooks.previous_secret END AS previous_secret
    )
    UPDATE webhook_deliveries AS claimed
    SET attempts = claimed.attempts + 1, lease_token = claimed.lease_token + 1, lease_owner = :owner,
        lease_expires_at = now() + make_interval(secs => :lease_s),
        next_attempt_at = now() + make_interval(secs => :lease_s)
    FROM next, taken, events
    WHERE claimed.id = next.id AND events.id = claimed.event_id
    RETURNING claimed.id, claimed.webhook_id, claimed.lease_token, claimed.attempts, taken.url, taken.secret,
        taken.previous_secret, events.id AS event_id, events.kind, events.severity, events.subject, events.message,
        events.details, events.created_at
""")
# Only a claim that is still in force may say how it ended. What became of the webhook follows from that. The webhook is
# locked first, here and wherever both are: so nobody who deletes it waits for somebody who waits for him.
_END = text("""
    WITH locked AS MATERIALIZED (
        SELECT id FROM webhooks WHERE id = :webhook_id FOR NO KEY UPDATE
    ), ended AS (
        UPDATE webhook_deliveries AS sent
        SET state = CAST(:state AS varchar), last_status = :status, last_error = :error, lease_owner = NULL,
            lease_expires_at = NULL, next_attempt_at = now() + make_interval(secs => :delay_s),
            finished_at = CASE WHEN CAST(:state AS varchar) = 'pending' THEN NULL ELSE now() END
        FROM locked
        WHERE sent.webhook_id = locked.id AND sent.id = :delivery_id AND sent.lease_token = :token
            AND sent.state = 'pending'
        RETURNING sent.webhook_id
    )
    UPDATE webhooks
    SET failures = CASE WHEN :failed THEN webhooks.failures + 1 ELSE 0 END,
        available_at = now() + make_interval(secs => CASE WHEN :failed
            THEN greatest(:asked_s, least(:longest_rest_s,
                :first_rest_s * power(:growth, least(webhooks.failures, 20)))) ELSE 0 END),
        disabled_reason = CASE WHEN :gone AND webhooks.disabled_at IS NULL
            THEN 'The receiver answered 410 Gone.' ELSE webhooks.disabled_reason END,
        disabled_at = CASE WHEN :gone THEN coalesce(webhooks.disabled_at, now()) ELSE webhooks.disabled_at END
    FROM ended WHERE webhooks.id = ended.webhook_id RETURNING webhooks.failures
""")
# A sender that dies in each attempt at one and the same delivery never says that it failed.
_BURY = text("""
    UPDATE webhook_deliveries
    SET state = 'dead', last_error = 'The process that sent it stopped, every time.', lease_owner = NULL,
        lease_expires_at = NULL, finished_at = now()
    WHERE id IN (
        SELECT id FROM webhook_deliveries
        WHERE state = 'pending' AND attempts >= :max_attempts AND lease_expires_at < now() FOR UPDATE SKIP LOCKED
    )
""")
_COUNT = text("""
    SELECT count(*) FILTER (WHERE owed.state = 'pending'), count(*) FILTER (WHERE owed.state = 'dead'),
        coalesce(extract(epoch FROM now() - min(owed.created_at) FILTER (WHERE owed.state = 'pending')), 0)
    FROM webhook_deliveries AS owed JOIN webhooks ON webhooks.id = owed.webhook_id
    WHERE owed.state <> 'delivered' AND webhooks.disabled_at IS NULL
""")
_END_SECRETS = text("""
    UPDATE webhooks SET previous_secret = NULL, previous_secret_until = NULL WHERE previous_secret_until < now()
""")
_FORGET = text("""
    DELETE FROM webhook_deliveries WHERE id IN (
        SELECT id FROM webhook_deliveries WHERE state = :state AND finished_at IS NOT NULL
            AND finished_at < now() - make_interval(days => :keep_days)
        ORDER BY finished_at LIMIT :limit FOR UPDATE SKIP LOCKED
    )
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """When a delivery that failed is tried again.

    Attributes:
        max_attempts: after which it is dead.
        first_s: pause after the first attempt; each further one is three times as long.
        longest_s: but no longer than this.
    """

    max_attempts: int
    first_s: float
    longest_s: float

    def delay_s(self, attempt: int, *, draw: Callable[[], float] = random) -> float:
        """Return the pause after an attempt, three quarters to five quarters of its length by lot.

        Deliveries that failed together must not come back together.

        Args:
            attempt: 1 for the first.
            draw: from 0 to 1.
        """
        longest = max(self.longest_s, self.first_s)
        pause_s = self.first_s
        for _ in range(attempt - 1):
            pause_s = min(pause_s * _GROWTH, longest)
        return pause_s * (0.75 + draw() / 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimedDelivery:
    """A delivery that this process sends. The token fences off a predecessor that wakes up late."""

    delivery_id: int
    webhook_id: int
    token: int
    attempt: int
    url: str = field(repr=False)
    secret: str = field(repr=False)
    #: The one before, as long as it signs too.
    previous_secret: str | None = field(repr=False)
    event: EventFacts

    @property
    def secrets(self) -> tuple[str, ...]:
        """What the delivery is signed with, the newest first."""
        return (self.secret,) if self.previous_secret is None else (self.secret, self.previous_secret)


def claim_delivery(*, database: Database, owner: str, lease_s: float) -> ClaimedDelivery | None:
    """Take the delivery whose turn it is, or None when none is.

    Webhooks go in turn, each with the delivery that has been due the longest; those that are disabled, rest, or have
    one in work are passed over.

    Args:
        database: where ownership is decided.
        owner: host and process, for people.
        lease_s: seconds until it is owed again; longer than an attempt can last.
    """
    with database.transaction() as session:
        row = session.execute(_CLAIM, {"owner": owner, "lease_s": lease_s}).one_or_none()
    if row is None:
        return None
    return ClaimedDelivery(
        delivery_id=row.id,
        webhook_id=row.webhook_id,
        token=row.lease_token,
        attempt=row.attempts,
        url=row.url,
        secret=row.secret,
        previous_secret=row.previous_secret,
        event=EventFacts(
            id=row.event_id,
            kind=row.kind,
            severity=row.severity,
            subject=row.subject,
            message=row.message,
            details=row.details,
            created_at=row.created_at,
        ),
    )


def end_delivered(*, database: Database, claimed: ClaimedDelivery, status: int) -> bool:
    """Record that the receiver took it. Returns False when the lease had run out: it is sent once more."""
    return _end(database, claimed, state=DeliveryState.DELIVERED, status=status, error=None, delay_s=0, rest_s=None)


def end_failed(
    *,
    database: Database,
    claimed: ClaimedDelivery,
    retry: RetryPolicy,
    error: str,
    status: int | None,
    retry_after_s: float = 0.0,
) -> DeliveryState | None:
    """Record that an attempt failed; the delivery is owed again later, or dead, and its webhook rests for a while.

    Args:
        database: where it is recorded.
        claimed: as claimed.
        retry: when it is tried again.
        error: one sentence.
        status: of the answer, where there was one. After 410 it is dead at once, and its webhook disabled.
        retry_after_s: how long the receiver asks to be left alone; obeyed up to a day.

    Returns:
        What it is now; None when the lease had run out and nothing was recorded.
    """
    is_last = claimed.attempt >= retry.max_attempts or status == _GONE
    state = DeliveryState.DEAD if is_last else DeliveryState.PENDING
    asked_s = min(retry_after_s, _LONGEST_ASKED_S)
    was_ours = _end(
        database,
        claimed,
        state=state,
        status=status,
        error=error,
        delay_s=max(retry.delay_s(claimed.attempt), asked_s),
        rest_s=retry.first_s,
        asked_s=asked_s,
    )
    return state if was_ours else None


def _end(
    database: Database,
    claimed: ClaimedDelivery,
    *,
    state: DeliveryState,
    status: int | None,
    error: str | None,
    delay_s: float,
    rest_s: float | None,
    asked_s: float = 0.0,
) -> bool:
    values: dict[str, Any] = {
        "delivery_id": claimed.delivery_id,
        "webhook_id": claimed.webhook_id,
        "token": claimed.token,
        "state": state.value,
        "status": status,
        "error": error,
        "delay_s": delay_s,
        "failed": rest_s is not None,
        "first_rest_s": rest_s or 0.0,
        "asked_s": asked_s,
        "gone": status == _GONE,
        "longest_rest_s": _LONGEST_REST_S,
        "growth": _GROWTH,
    }
    with database.transaction() as session:
        return session.execute(_END, values).one_or_none() is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxFigures:
    """How much is owed to all webhooks, and for how long."""

    pending: int
    dead: int
    oldest_pending_s: float


def read_outbox(session: Session) -> OutboxFigures:
    """Count what is owed and what was given up; what is owed to disabled webhooks is left out."""
    pending, dead, oldest_s = session.execute(_COUNT).one()
    return OutboxFigures(pending=pending, dead=dead, oldest_pending_s=max(0.0, float(oldest_s)))


def tidy_deliveries(*, database: Database, max_attempts: int, keep_days: int, dead_keep_days: int) -> None:
    """Give up what kills every process that sends it, and forget some of what was delivered or given up long ago.

    Args:
        database: the outbox.
        max_attempts: after which a delivery whose sender stopped is given up.
        keep_days: for what was delivered.
        dead_keep_days: for what was given up, until then somebody can have it sent again.
    """
    with database.transaction() as session:
        session.execute(_END_SECRETS)
        session.execute(_BURY, {"max_attempts": max_attempts})
        for state, days in ((DeliveryState.DELIVERED, keep_days), (DeliveryState.DEAD, dead_keep_days)):
            session.execute(_FORGET, {"state": state.value, "keep_days": days, "limit": _DELETED_AT_ONCE})
