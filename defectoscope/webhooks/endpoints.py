"""Webhooks as rows: registered, listed, disabled, deleted. Their secret is returned once, when it is made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from sqlalchemy import func, select, text, update
from sqlalchemy.orm import Session

from defectoscope.database import Database, DeliveryState, Webhook, WebhookDelivery
from defectoscope.errors.webhooks import TooManyWebhooks, WebhookKindUnknown, WebhookNotFound
from defectoscope.events import KINDS, names_a_kind
from defectoscope.webhooks.signature import new_secret

#: An event is written with a row for each webhook that wants it, in the transaction of whoever made it happen.
MOST_WEBHOOKS = 100
#: After a rotation; until then the receiver has to know the new secret.
BOTH_SIGN_FOR = timedelta(days=1)

_WAKE = text("""
    UPDATE webhooks SET failures = 0, available_at = now()
    WHERE id = :webhook_id AND available_at > now() AND NOT EXISTS (
        SELECT FROM webhook_deliveries AS sent
        WHERE sent.webhook_id = webhooks.id AND sent.state = 'pending' AND sent.lease_expires_at >= now()
    )
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookView:
    """A webhook and what is owed to it."""

    row: Webhook
    pending: int
    dead: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisteredWebhook:
    """A new webhook with its secret, which nobody can ask for again."""

    webhook_id: int
    secret: str = field(repr=False)


def register_webhook(session: Session, *, url: str, kinds: Sequence[str], name: str | None = None) -> RegisteredWebhook:
    """Record a webhook; it is told of what happens from the commit on.

    Args:
        session: of the transaction.
        url: checked by the caller (`Sender.check`), who does so before a transaction is open.
        kinds: of events: ``model.promoted``, ``model.*`` for a family, ``*`` for all.
        name: for people.

    Raises:
        WebhookKindUnknown: nothing that happens is of this kind.
        TooManyWebhooks: there are as many as there may be.
    """
    for kind in kinds:
        if not names_a_kind(kind):
            raise WebhookKindUnknown(
                f"There are no events of the kind {kind}; see GET /v1/webhooks/kinds.", kind=kind, known=list(KINDS)
            )
    if session.scalars(select(func.count()).select_from(Webhook)).one() >= MOST_WEBHOOKS:
        raise TooManyWebhooks(f"There are {MOST_WEBHOOKS} webhooks already; delete one first.", most=MOST_WEBHOOKS)
    secret = new_secret()
    row = Webhook(name=name, url=url, kinds=list(dict.fromkeys(kinds)), secret=secret)
    session.add(row)
    session.flush()
    return RegisteredWebhook(webhook_id=row.id, secret=secret)


def rotate_secret(session: Session, webhook_id: int) -> RegisteredWebhook:
    """Give a webhook a new secret; the one it had signs beside it for a day.

    Rotated again within the day, the newer of the two old ones goes on and the older one ends.

    Raises:
        WebhookNotFound: there is none.
    """
    row = lock_webhook(session, webhook_id)
    row.previous_secret, row.previous_secret_until = row.secret, func.now() + BOTH_SIGN_FOR
    row.secret = new_secret()
    session.flush()
    return RegisteredWebhook(webhook_id=row.id, secret=row.secret)


def view_webhook(session: Session, webhook_id: int) -> WebhookView:
    """Return one webhook.

    Raises:
        WebhookNotFound: there is none.
    """
    row = find_webhook(session, webhook_id)
    [view] = _views(session, [row])
    return view


def list_webhooks(session: Session, *, before: int | None = None, limit: int = 50) -> Sequence[WebhookView]:
    """Return webhooks, newest first, those with an id below ``before``."""
    statement = select(Webhook)
    if before is not None:
        statement = statement.where(Webhook.id < before)
    return _views(session, session.scalars(statement.order_by(Webhook.id.desc()).limit(limit)).all())


def find_webhook(session: Session, webhook_id: int) -> Webhook:
    """Return the row of a webhook.

    Raises:
        WebhookNotFound: there is none.
    """
    row = session.get(Webhook, webhook_id, populate_existing=True)
    if row is None:
        raise WebhookNotFound(f"There is no webhook {webhook_id}.", webhook_id=webhook_id)
    return row


def lock_webhook(session: Session, webhook_id: int) -> Webhook:
    """Return the row of a webhook that nobody deletes before the transaction ends; events are owed to it meanwhile.

    Raises:
        WebhookNotFound: there is none.
    """
    row = session.get(Webhook, webhook_id, with_for_update={"key_share": True}, populate_existing=True)
    if row is None:
        raise WebhookNotFound(f"There is no webhook {webhook_id}.", webhook_id=webhook_id)
    return row


def disable_webhook(session: Session, webhook_id: int) -> None:
    """Send nothing more to a webhook, and owe it nothing new; what is owed already waits. Again changes nothing.

    Raises:
        WebhookNotFound: there is none.
    """
    find_webhook(session, webhook_id)
    session.execute(
        update(Webhook)
        .where(Webhook.id == webhook_id, Webhook.disabled_at.is_(None))
        .values(disabled_at=func.now())
        .execution_options(synchronize_session=False)
    )


def enable_webhook(session: Session, webhook_id: int) -> None:
    """Send to a webhook again, at once, what it is owed.

    Raises:
        WebhookNotFound: there is none.
    """
    find_webhook(session, webhook_id)
    session.execute(
        update(Webhook)
        .where(Webhook.id == webhook_id, Webhook.disabled_at.is_not(None))
        .values(disabled_at=None, disabled_reason=None)
        .execution_options(synchronize_session=False)
    )
    wake_webhook(session, webhook_id)


def wake_webhook(session: Session, webhook_id: int) -> None:
    """End the rest of a webhook that failed; one with a delivery in work is left alone."""
    session.execute(_WAKE, {"webhook_id": webhook_id})


def delete_webhook(*, database: Database, webhook_id: int) -> None:
    """Forget a webhook, its secret and everything about its deliveries.

    Raises:
        WebhookNotFound: there is none.
    """
    # By itself and first: an event that is written while the rows go is then owed to nobody, whatever becomes of this.
    with database.transaction() as session:
        disable_webhook(session, webhook_id)
    with database.transaction() as session:
        session.delete(lock_webhook(session, webhook_id))


def _views(session: Session, rows: Sequence[Webhook]) -> list[WebhookView]:
    counted = session.execute(
        select(WebhookDelivery.webhook_id, WebhookDelivery.state, func.count())
        # Written out, not bound: there is an index for this very condition.
        .where(WebhookDelivery.webhook_id.in_([row.id for row in rows]), text("state <> 'delivered'"))
        .group_by(WebhookDelivery.webhook_id, WebhookDelivery.state)
    )
    counts = {(webhook_id, state): count for webhook_id, state, count in counted}
    return [
        WebhookView(
            row=row,
            pending=counts.get((row.id, DeliveryState.PENDING), 0),
            dead=counts.get((row.id, DeliveryState.DEAD), 0),
        )
        for row in rows
    ]
