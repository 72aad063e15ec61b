"""Webhooks and their deliveries on the wire. A secret is in the answer that makes a webhook and nowhere else."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, StringConstraints

from api.schemas.base import Body, Count, Moment, Text, shows
from defectoscope.database import DeliveryState
from defectoscope.webhooks.addresses import MAX_URL_LENGTH
from defectoscope.webhooks.deliveries import DeliveryView
from defectoscope.webhooks.endpoints import WebhookView

Url = Annotated[str, StringConstraints(min_length=1, max_length=MAX_URL_LENGTH, pattern=r"^[\x21-\x7e]+$")]
Kind = Annotated[str, StringConstraints(max_length=64, pattern=r"^(\*|[a-z_]+(\.[a-z_]+)*(\.\*)?)$")]

_WEBHOOK = {
    "id": 3,
    "name": "line 3",
    "url": "https://mes.example.com/hooks/defects",
    "kinds": ["job.finished", "model.*"],
    "created_at": "2026-11-23T03:12:00Z",
    "disabled_at": None,
    "disabled_reason": None,
    "previous_secret_until": None,
    "failures": 0,
    "pending": 1,
    "dead": 0,
}


class WebhookIn(Body):
    """An address that wants to be told of events."""

    model_config = shows({name: _WEBHOOK[name] for name in ("url", "kinds", "name")})

    url: Url = Field(description="https://host/path; what may be sent to is up to the settings")
    kinds: Annotated[list[Kind], Field(min_length=1, max_length=32)] = Field(
        description="of events: model.promoted, model.* for a family, * for all"
    )
    name: Text | None = Field(None, description="for people")


class WebhookOut(Body):
    """A webhook and what is owed to it."""

    model_config = shows(_WEBHOOK)

    id: int
    name: str | None
    url: str
    kinds: list[str]
    created_at: Moment
    disabled_at: Moment | None = Field(description="nothing is sent while this is set")
    disabled_reason: str | None = Field(description="null where somebody disabled it")
    previous_secret_until: Moment | None = Field(description="until then the secret before the last rotation signs too")
    failures: Count = Field(description="attempts in a row that failed")
    pending: Count = Field(description="deliveries that are owed")
    dead: Count = Field(description="deliveries that were given up")

    @classmethod
    def of(cls, view: WebhookView) -> Self:
        """Return a webhook as it goes over the wire: everything but its secret."""
        row = view.row
        return cls(
            id=row.id,
            name=row.name,
            url=row.url,
            kinds=row.kinds,
            created_at=row.created_at,
            disabled_at=row.disabled_at,
            disabled_reason=row.disabled_reason,
            previous_secret_until=row.previous_secret_until,
            failures=row.failures,
            pending=view.pending,
            dead=view.dead,
        )


class NewWebhookOut(Body):
    """A webhook that was just made, with its secret."""

    model_config = shows({"webhook": _WEBHOOK, "secret": "whsec_…"})

    webhook: WebhookOut
    secret: str = Field(description="shown this once; the receiver checks signatures with it")


class DeliveryOut(Body):
    """One event on its way to one webhook."""

    model_config = shows(
        {
            "id": 118,
            "webhook_id": 3,
            "event_id": 41,
            "message_id": "evt_41",
            "kind": "job.finished",
            "subject": "job:12",
            "state": "pending",
            "attempts": 2,
            "status": 503,
            "error": "The receiver answered 503.",
            "created_at": "2026-11-23T03:12:00Z",
            "next_attempt_at": "2026-11-23T03:12:41Z",
            "finished_at": None,
        }
    )

    id: int
    webhook_id: int
    event_id: int
    message_id: str = Field(description="value of the header webhook-id, by which receivers drop repetitions")
    kind: str
    subject: str
    state: DeliveryState
    attempts: Count
    status: int | None = Field(description="HTTP status of the last answer")
    error: str | None = Field(description="why the last attempt failed")
    created_at: Moment
    next_attempt_at: Moment | None = Field(description="null when it is over")
    finished_at: Moment | None

    @classmethod
    def of(cls, view: DeliveryView) -> Self:
        """Return a delivery as it goes over the wire."""
        row = view.row
        return cls(
            id=row.id,
            webhook_id=row.webhook_id,
            event_id=row.event_id,
            message_id=view.message_id,
            kind=view.kind,
            subject=view.subject,
            state=row.state,
            attempts=row.attempts,
            status=row.last_status,
            error=row.last_error,
            created_at=row.created_at,
            next_attempt_at=row.next_attempt_at if row.state is DeliveryState.PENDING else None,
            finished_at=row.finished_at,
        )


class RedeliveredOut(Body):
    """How much is owed again."""

    model_config = shows({"redelivered": 7})

    redelivered: Count


class KindOut(Body):
    """A kind of event."""

    model_config = shows({"kind": "model.promoted", "meaning": "a model version went into service"})

    kind: str
    meaning: str = Field(description="when it happens")


class KindsOut(Body):
    """Every kind of event that there is."""

    model_config = shows({"items": [KindOut.example()]})

    items: list[KindOut]
