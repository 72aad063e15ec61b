"""Delivering: one attempt at the delivery whose turn it is, from its claim to the record of how it ended."""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import StrEnum

import structlog

from defectoscope.database import Database, DeliveryState
from defectoscope.errors.webhooks import WebhookAddressRefused, WebhookDeliveryFailed
from defectoscope.webhooks.messages import body_of, headers_of
from defectoscope.webhooks.outbox import ClaimedDelivery, RetryPolicy, claim_delivery, end_delivered, end_failed
from defectoscope.webhooks.sending import Sender

log = structlog.get_logger(__name__)


class Outcome(StrEnum):
    """How an attempt ended."""

    DELIVERED = "delivered"
    FAILED = "failed"
    DEAD = "dead"
    LOST = "lost"


def deliver_next(
    *,
    database: Database,
    sender: Sender,
    retry: RetryPolicy,
    owner: str,
    lease_s: float,
    now: Callable[[], float] = time.time,
) -> Outcome | None:
    """Send the delivery whose turn it is, once.

    No connection to the database is held while the receiver takes its time.

    Args:
        database: the outbox.
        sender: the way out.
        retry: when a delivery that failed is tried again.
        owner: host and process, for people.
        lease_s: longer than an attempt can last.
        now: the clock that deliveries are signed by, seconds since 1970.

    Returns:
        How it ended; None when nothing was owed. `LOST` was sent, perhaps, but somebody else sends it again.
    """
    claimed = claim_delivery(database=database, owner=owner, lease_s=lease_s)
    if claimed is None:
        return None
    body = body_of(claimed.event)
    headers = headers_of(claimed.event, secrets=claimed.secrets, timestamp=int(now()), body=body)
    # Neither the address, whose path is often a secret of the receiver's, nor the headers go into the log.
    about = log.bind(webhook=claimed.webhook_id, delivery=claimed.delivery_id, kind=claimed.event.kind)
    try:
        status = sender.send(claimed.url, body=body, headers=headers)
    except (WebhookDeliveryFailed, WebhookAddressRefused) as exc:
        outcome = _record_failure(database, claimed, retry, exc)
        about.warning(
            "webhook.not_delivered", outcome=outcome, attempt=claimed.attempt, code=exc.code, reason=exc.message
        )
        return outcome
    if not end_delivered(database=database, claimed=claimed, status=status):
        about.warning("webhook.lease_lost", attempt=claimed.attempt)
        return Outcome.LOST
    about.info("webhook.delivered", attempt=claimed.attempt, status=status)
    return Outcome.DELIVERED


def _record_failure(
    database: Database,
    claimed: ClaimedDelivery,
    retry: RetryPolicy,
    error: WebhookDeliveryFailed | WebhookAddressRefused,
) -> Outcome:
    state = end_failed(
        database=database,
        claimed=claimed,
        retry=retry,
        error=error.message,
        status=error.details.get("status"),
        retry_after_s=error.details.get("retry_after_s", 0.0),
    )
    if state is None:
        return Outcome.LOST
    return Outcome.DEAD if state is DeliveryState.DEAD else Outcome.FAILED
