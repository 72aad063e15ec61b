"""The outbox of a test: register, let things happen, send, look."""

from __future__ import annotations

from defectoscope.database import Webhook, WebhookDelivery
from defectoscope.events import record_event
from defectoscope.webhooks.deliveries import list_deliveries
from defectoscope.webhooks.delivering import deliver_next
from defectoscope.webhooks.endpoints import register_webhook
from defectoscope.webhooks.outbox import RetryPolicy

#: Without pauses, so that a test need not wait for them.
RETRY = RetryPolicy(max_attempts=3, first_s=0, longest_s=0)


class Outbox:
    """Webhooks on one database, sent to by one sender."""

    def __init__(self, database, sender):
        self.database = database
        self.sender = sender

    def register(self, url, *kinds):
        with self.database.transaction() as session:
            return register_webhook(session, url=url, kinds=kinds or ("*",))

    def happen(self, kind="job.finished", **details):
        with self.database.transaction() as session:
            return record_event(session, kind=kind, subject="job:1", message="It happened.", **details)

    def send(self, *, retry=RETRY, lease_s=60, **given):
        return deliver_next(
            database=self.database, sender=self.sender, retry=retry, owner="test", lease_s=lease_s, **given
        )

    def deliveries(self, webhook_id):
        """Oldest first."""
        with self.database.transaction() as session:
            return [view.row for view in reversed(list_deliveries(session, webhook_id))]

    def states(self, webhook_id):
        return [row.state.value for row in self.deliveries(webhook_id)]

    def webhook(self, webhook_id):
        with self.database.transaction() as session:
            return session.get(Webhook, webhook_id)

    def change(self, webhook_id, **values):
        """Set columns of a webhook, or of its deliveries where they have them: time passes."""
        with self.database.transaction() as session:
            for name, value in values.items():
                table = WebhookDelivery if hasattr(WebhookDelivery, name) else Webhook
                key = WebhookDelivery.webhook_id if table is WebhookDelivery else Webhook.id
                session.query(table).filter(key == webhook_id).update({name: value}, synchronize_session=False)
