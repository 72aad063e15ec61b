"""Webhooks: who is told of events, and what became of telling them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path

from api.access import AccessScope, ScopedRoute, requires
from api.pages import Cursor, Limit, cut, last_id
from api.schemas.base import LARGEST_INTEGER, Page
from api.schemas.webhooks import DeliveryOut, KindOut, KindsOut, NewWebhookOut, RedeliveredOut, WebhookIn, WebhookOut
from api.services import Parts, Services
from defectoscope.database import DeliveryState
from defectoscope.events import KINDS, names_a_kind
from defectoscope.webhooks.deliveries import list_deliveries, redeliver, request_test, view_delivery
from defectoscope.webhooks.endpoints import (
    delete_webhook,
    disable_webhook,
    enable_webhook,
    list_webhooks,
    register_webhook,
    rotate_secret,
    view_webhook,
)

# An address can hold a secret of the receiver's in its path, so that looking needs as much as changing.
router = APIRouter(prefix="/webhooks", tags=["webhooks"], route_class=ScopedRoute)

WebhookId = Annotated[int, Path(ge=1, le=LARGEST_INTEGER, examples=[3])]
DeliveryId = Annotated[int, Path(ge=1, le=LARGEST_INTEGER, examples=[118])]


@router.post("", status_code=201, **requires(AccessScope.ADMIN))
def create(services: Parts, wanted: WebhookIn) -> NewWebhookOut:
    """Tell an address of events from now on; the secret is in this answer and can never be asked for again."""
    # Before a transaction: the name is resolved, which may take a while.
    services.sender.check(wanted.url)
    with services.database.transaction() as session:
        made = register_webhook(session, url=wanted.url, kinds=wanted.kinds, name=wanted.name)
        webhook = WebhookOut.of(view_webhook(session, made.webhook_id))
    return NewWebhookOut(webhook=webhook, secret=made.secret)


@router.get("", **requires(AccessScope.ADMIN))
def read_webhooks(services: Parts, cursor: Cursor = None, limit: Limit = 50) -> Page[WebhookOut]:
    """List webhooks, newest first."""
    with services.database.transaction() as session:
        rows = list_webhooks(session, before=last_id(cursor), limit=limit + 1)
    page, next_cursor = cut(rows, limit, lambda view: view.row.id)
    return Page(items=[WebhookOut.of(view) for view in page], next_cursor=next_cursor)


@router.get("/kinds", **requires(AccessScope.VIEWER))
def read_kinds() -> KindsOut:
    """List the kinds of events that a webhook can be told of."""
    wanted = {kind: meaning for kind, meaning in KINDS.items() if names_a_kind(kind)}
    return KindsOut(items=[KindOut(kind=kind, meaning=meaning) for kind, meaning in wanted.items()])


@router.get("/{webhook_id}", **requires(AccessScope.ADMIN))
def read_webhook(services: Parts, webhook_id: WebhookId) -> WebhookOut:
    """Show one webhook."""
    return _show(services, webhook_id)


@router.delete("/{webhook_id}", **requires(AccessScope.ADMIN))
def delete(services: Parts, webhook_id: WebhookId) -> WebhookOut:
    """Forget a webhook with its secret and its deliveries; what it was is the answer."""
    was = _show(services, webhook_id)
    delete_webhook(database=services.database, webhook_id=webhook_id)
    return was


@router.post("/{webhook_id}/disable", **requires(AccessScope.ADMIN))
def disable(services: Parts, webhook_id: WebhookId) -> WebhookOut:
    """Send nothing more, and owe nothing new; what is owed waits."""
    with services.database.transaction() as session:
        disable_webhook(session, webhook_id)
    return _show(services, webhook_id)


@router.post("/{webhook_id}/enable", **requires(AccessScope.ADMIN))
def enable(services: Parts, webhook_id: WebhookId) -> WebhookOut:
    """Send again, what is owed first."""
    with services.database.transaction() as session:
        enable_webhook(session, webhook_id)
    services.courier.wake()
    return _show(services, webhook_id)


@router.post("/{webhook_id}/rotate", **requires(AccessScope.ADMIN))
def rotate(services: Parts, webhook_id: WebhookId) -> NewWebhookOut:
    """Make a new secret, which is in this answer alone; the one before signs beside it for a day."""
    with services.database.transaction() as session:
        made = rotate_secret(session, webhook_id)
        webhook = WebhookOut.of(view_webhook(session, webhook_id))
    return NewWebhookOut(webhook=webhook, secret=made.secret)


@router.post("/{webhook_id}/test", status_code=201, **requires(AccessScope.ADMIN))
def send_test(services: Parts, webhook_id: WebhookId) -> DeliveryOut:
    """Send an event that says nothing but that it is a test."""
    with services.database.transaction() as session:
        delivery_id = request_test(session, webhook_id)
    return _show_delivery(services, webhook_id, delivery_id, wake=True)


@router.post("/{webhook_id}/redeliver", **requires(AccessScope.ADMIN))
def redeliver_dead(services: Parts, webhook_id: WebhookId) -> RedeliveredOut:
    """Owe every dead delivery of a webhook again."""
    with services.database.transaction() as session:
        count = redeliver(session, webhook_id)
    services.courier.wake()
    return RedeliveredOut(redelivered=count)


@router.get("/{webhook_id}/deliveries", **requires(AccessScope.ADMIN))
def read_deliveries(
    services: Parts,
    webhook_id: WebhookId,
    state: DeliveryState | None = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[DeliveryOut]:
    """List what was, is and could not be delivered to a webhook, newest first."""
    with services.database.transaction() as session:
        rows = list_deliveries(session, webhook_id, before=last_id(cursor), limit=limit + 1, state=state)
    page, next_cursor = cut(rows, limit, lambda view: view.row.id)
    return Page(items=[DeliveryOut.of(view) for view in page], next_cursor=next_cursor)


@router.get("/{webhook_id}/deliveries/{delivery_id}", **requires(AccessScope.ADMIN))
def read_delivery(services: Parts, webhook_id: WebhookId, delivery_id: DeliveryId) -> DeliveryOut:
    """Show one delivery."""
    return _show_delivery(services, webhook_id, delivery_id)


@router.post("/{webhook_id}/deliveries/{delivery_id}/redeliver", **requires(AccessScope.ADMIN))
def redeliver_one(services: Parts, webhook_id: WebhookId, delivery_id: DeliveryId) -> DeliveryOut:
    """Owe a delivery again that is over, dead or delivered."""
    with services.database.transaction() as session:
        redeliver(session, webhook_id, delivery_id=delivery_id)
    return _show_delivery(services, webhook_id, delivery_id, wake=True)


def _show(services: Services, webhook_id: int) -> WebhookOut:
    with services.database.transaction() as session:
        return WebhookOut.of(view_webhook(session, webhook_id))


def _show_delivery(services: Services, webhook_id: int, delivery_id: int, *, wake: bool = False) -> DeliveryOut:
    with services.database.transaction() as session:
        shown = DeliveryOut.of(view_delivery(session, webhook_id, delivery_id))
    if wake:
        services.courier.wake()
    return shown
