"""Deliveries as people see them: looked at, asked for again, tried with an event that says nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from defectoscope.database import DeliveryState, Event, WebhookDelivery
from defectoscope.errors.webhooks import WebhookDeliveryNotFound, WebhookDeliveryPending, WebhookDisabled
from defectoscope.events import record_event
from defectoscope.webhooks.endpoints import find_webhook, lock_webhook, wake_webhook
from defectoscope.webhooks.messages import message_id_of

# The token moves on, so that a sender of long ago can say nothing about it any more.
_REDELIVER = text("""
    UPDATE webhook_deliveries
    SET state = 'pending', attempts = 0, next_attempt_at = now(), lease_token = lease_token + 1, finished_at = NULL
    WHERE webhook_id = :webhook_id AND state <> 'pending'
        AND (id = :delivery_id OR (CAST(:delivery_id AS bigint) IS NULL AND state = 'dead'))
    RETURNING id
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryView:
    """A delivery and the event it is about."""

    row: WebhookDelivery
    kind: str
    subject: str

    @property
    def message_id(self) -> str:
        """What the receiver knows the event by."""
        return message_id_of(self.row.event_id)


def redeliver(session: Session, webhook_id: int, *, delivery_id: int | None = None) -> int:
    """Owe a delivery again with all of its attempts, dead or delivered; without an id, every dead one of a webhook.

    Args:
        session: of the transaction.
        webhook_id: whose.
        delivery_id: which; None for all that are dead.

    Returns:
        How many are owed again.

    Raises:
        WebhookNotFound, WebhookDeliveryNotFound: there is none.
        WebhookDeliveryPending: the one named has not ended yet.
    """
    lock_webhook(session, webhook_id)
    if delivery_id is not None and view_delivery(session, webhook_id, delivery_id).row.state is DeliveryState.PENDING:
        raise WebhookDeliveryPending(f"Delivery {delivery_id} is still owed.", delivery_id=delivery_id)
    found = session.scalars(_REDELIVER, {"webhook_id": webhook_id, "delivery_id": delivery_id}).all()
    wake_webhook(session, webhook_id)
    return len(found)


def request_test(session: Session, webhook_id: int) -> int:
    """Owe a webhook an event that says nothing but that it is a test.

    Returns:
        The delivery's id.

    Raises:
        WebhookNotFound: there is none.
        WebhookDisabled: nothing is sent to it.
    """
    row = lock_webhook(session, webhook_id)
    if row.disabled_at is not None:
        raise WebhookDisabled(f"Webhook {webhook_id} is disabled; enable it first.", webhook_id=webhook_id)
    event_id = record_event(
        session,
        kind="webhook.test",
        subject=f"webhook:{webhook_id}",
        message=f"This is a test of webhook {webhook_id}.",
    )
    delivery = WebhookDelivery(webhook_id=webhook_id, event_id=event_id)
    session.add(delivery)
    session.flush()
    wake_webhook(session, webhook_id)
    return delivery.id


def view_delivery(session: Session, webhook_id: int, delivery_id: int) -> DeliveryView:
    """Return one delivery.

    Raises:
        WebhookDeliveryNotFound: the webhook has none of this id.
    """
    found = _views(session, WebhookDelivery.webhook_id == webhook_id, WebhookDelivery.id == delivery_id, limit=1)
    if not found:
        raise WebhookDeliveryNotFound(f"Webhook {webhook_id} has no delivery {delivery_id}.", delivery_id=delivery_id)
    return found[0]


def list_deliveries(
    session: Session,
    webhook_id: int,
    *,
    before: int | None = None,
    limit: int = 50,
    state: DeliveryState | None = None,
) -> Sequence[DeliveryView]:
    """Return deliveries of a webhook, newest first, those with an id below ``before``; in one state when it is named.

    Raises:
        WebhookNotFound: there is none.
    """
    find_webhook(session, webhook_id)
    conditions = [WebhookDelivery.webhook_id == webhook_id]
    if before is not None:
        conditions.append(WebhookDelivery.id < before)
    if state is not None:
        conditions.append(WebhookDelivery.state == state)
    return _views(session, *conditions, limit=limit)


def _views(session: Session, *conditions: Any, limit: int) -> list[DeliveryView]:
    rows = session.execute(
        select(WebhookDelivery, Event.kind, Event.subject)
        .join(Event, Event.id == WebhookDelivery.event_id)
        .where(*conditions)
        .order_by(WebhookDelivery.id.desc())
        .limit(limit)
        .execution_options(populate_existing=True)
    )
    return [DeliveryView(row=row, kind=kind, subject=subject) for row, kind, subject in rows]
