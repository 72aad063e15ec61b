"""The calls about webhooks: who is told of events, and what became of telling them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

from defectoscope.client.pages import each
from defectoscope.client.transport import Transport
from defectoscope.client.wire import EventKind, NewWebhook, Webhook, WebhookDelivery


@dataclass(frozen=True, slots=True)
class WebhookCalls:
    """Webhooks: create, look, disable, enable, delete, test, redeliver."""

    transport: Transport

    def create(self, url: str, *, kinds: Sequence[str], name: str | None = None) -> NewWebhook:
        """Have an address told of events. Sent once: a repetition would make a second webhook.

        Args:
            url: ``https://host/path``.
            kinds: such as ``job.finished``, ``model.*`` or ``*``.
            name: for people.

        Returns:
            The webhook and its secret, which nobody can ask for again.
        """
        body = {"url": url, "kinds": list(kinds), "name": name}
        return cast("NewWebhook", self.transport.call("POST", "/v1/webhooks", json=body))

    def list(self, *, limit: int | None = None) -> Iterator[Webhook]:
        """Yield webhooks, newest first."""
        return each(self.transport, "/v1/webhooks", limit=limit)

    def kinds(self) -> Sequence[EventKind]:
        """Return the kinds of events that a webhook can be told of."""
        return cast("Sequence[EventKind]", self.transport.call("GET", "/v1/webhooks/kinds")["items"])

    def get(self, webhook_id: int) -> Webhook:
        """Return a webhook, without its secret."""
        return cast("Webhook", self.transport.call("GET", f"/v1/webhooks/{webhook_id}"))

    def delete(self, webhook_id: int) -> Webhook:
        """Forget a webhook and its deliveries; returns what it was."""
        return cast("Webhook", self.transport.call("DELETE", f"/v1/webhooks/{webhook_id}"))

    def disable(self, webhook_id: int) -> Webhook:
        """Have nothing more sent to a webhook; what is owed already waits."""
        return self._change(webhook_id, "disable")

    def enable(self, webhook_id: int) -> Webhook:
        """Have a webhook told again, first of what it is owed."""
        return self._change(webhook_id, "enable")

    def test(self, webhook_id: int) -> WebhookDelivery:
        """Have a test event sent; its delivery is on its way, and `delivery` says what became of it."""
        return cast("WebhookDelivery", self.transport.call("POST", f"/v1/webhooks/{webhook_id}/test"))

    def deliveries(
        self, webhook_id: int, *, state: str | None = None, limit: int | None = None
    ) -> Iterator[WebhookDelivery]:
        """Yield deliveries of a webhook, newest first; ``pending``, ``delivered`` or ``dead`` ones when named."""
        return each(self.transport, f"/v1/webhooks/{webhook_id}/deliveries", state=state, limit=limit)

    def delivery(self, webhook_id: int, delivery_id: int) -> WebhookDelivery:
        """Return one delivery."""
        path = f"/v1/webhooks/{webhook_id}/deliveries/{delivery_id}"
        return cast("WebhookDelivery", self.transport.call("GET", path))

    def rotate(self, webhook_id: int) -> NewWebhook:
        """Make a new secret; the one before signs beside it for a day. Sent once: each one ends the one before it."""
        return cast("NewWebhook", self.transport.call("POST", f"/v1/webhooks/{webhook_id}/rotate"))

    def redeliver(self, webhook_id: int, delivery_id: int) -> WebhookDelivery:
        """Have one delivery that is over, dead or delivered, tried again."""
        path = f"/v1/webhooks/{webhook_id}/deliveries/{delivery_id}/redeliver"
        return cast("WebhookDelivery", self.transport.call("POST", path))

    def redeliver_dead(self, webhook_id: int) -> int:
        """Have every dead delivery of a webhook tried again; returns how many."""
        answer = self.transport.call("POST", f"/v1/webhooks/{webhook_id}/redeliver", repeatable=True)
        return int(answer["redelivered"])

    def _change(self, webhook_id: int, action: str) -> Webhook:
        # To do it twice is to do it once.
        answer = self.transport.call("POST", f"/v1/webhooks/{webhook_id}/{action}", repeatable=True)
        return cast("Webhook", answer)
