"""Events: what happened that somebody may want to be told of, written in the transaction that made it happen.

With an event, in the same statement, is written to whom it is owed: a delivery for each webhook that wants its kind. So
there is no event that a webhook missed, and none it is owed twice. Sending is somebody else's business (`webhooks`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from sqlalchemy import bindparam, select, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import Session
from sqlalchemy.types import String

from defectoscope.database import Event, Severity

#: Every kind of event that there is, and when it happens.
KINDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "job.finished": "a job has ended, well or not",
        "training.succeeded": "a training run has ended well",
        "training.failed": "a training run has failed or was given up",
        "training.cancelled": "a training run was cancelled",
        "night.started": "the night has asked for a training run",
        "night.skipped": "the night has not, and says why",
        "model.promoted": "a model version went into service",
        "model.refused": "a model version was not promoted",
        "model.rolled_back": "an earlier model version is back in service",
        "model.retired": "a model version was retired",
        "model.weights_dropped": "the files of a model version were dropped",
        "model.imported": "a foreign model is a model version now",
        "model.import_failed": "a foreign model was refused or its import failed",
        "worker.switched": "a worker is warm on the model version in service",
        "worker.switch_failed": "a worker cannot load the model version in service",
        "storage.collected": "stored objects that nothing referred to were deleted",
        "retention.rule_added": "somebody had masks or originals deleted when they are old",
        "retention.rule_removed": "somebody took such a rule back",
        "retention.hold_added": "somebody had a job or an image kept whatever the rules say",
        "retention.hold_removed": "somebody let the rules hold again for it",
        "webhook.test": "somebody asked for a test delivery; only the webhook tested is sent it",
    }
)

#: Kinds that are about webhooks are owed to none: a webhook that fails must not be a reason to send it more.
_OF_WEBHOOKS = "webhook"

# One statement, so that whoever ends a job pays for one. A webhook that is being deleted at this moment is passed over:
# to wait for that, or to fail because of it, is not for the completion of a chunk.
_RECORD = text("""
    WITH event AS (
        INSERT INTO events (kind, subject, message, severity, details)
        VALUES (:kind, :subject, :message, :severity, :details) RETURNING id
    ), owed AS (
        INSERT INTO webhook_deliveries (webhook_id, event_id)
        SELECT webhooks.id, event.id FROM webhooks CROSS JOIN event
        WHERE webhooks.disabled_at IS NULL AND webhooks.kinds && :wanted_as
        FOR KEY SHARE OF webhooks SKIP LOCKED
    )
    SELECT id FROM event
""").bindparams(bindparam("details", type_=JSONB), bindparam("wanted_as", type_=ARRAY(String(64))))


def record_event(
    session: Session, *, kind: str, subject: str, message: str, severity: Severity = Severity.INFO, **details: Any
) -> int:
    """Write an event and to whom it is owed; both are there if the transaction commits, and only then.

    Args:
        session: of the transaction that makes it happen.
        kind: what kind of thing happened, one of `KINDS`.
        subject: what it is about, such as ``training_run:6`` or ``model:3``.
        message: one sentence for a person.
        severity: how much it matters.
        details: JSON-ready facts for a program.

    Returns:
        The event's id.
    """
    facts = {"kind": kind, "subject": subject, "message": message, "severity": severity.value, "details": details}
    event_id: int = session.execute(_RECORD, {**facts, "wanted_as": _wanted_as(kind)}).scalar_one()
    return event_id


def _wanted_as(kind: str) -> list[str]:
    """Return what a webhook can have said to be told of a kind: the kind, its family, everything."""
    family = kind.partition(".")[0]
    return [] if family == _OF_WEBHOOKS else [kind, f"{family}.*", "*"]


def names_a_kind(wanted: str) -> bool:
    """Return whether a webhook that wants this could ever be told of anything."""
    return any(wanted in _wanted_as(kind) for kind in KINDS)


def list_events(
    session: Session, *, before: int | None = None, limit: int = 50, kind: str | None = None
) -> Sequence[Event]:
    """Return events, newest first, those with an id below ``before``; of one kind when it is named."""
    statement = select(Event)
    if before is not None:
        statement = statement.where(Event.id < before)
    if kind is not None:
        statement = statement.where(Event.kind == kind)
    return session.scalars(statement.order_by(Event.id.desc()).limit(limit)).all()
