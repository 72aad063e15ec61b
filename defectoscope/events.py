"""Events: what happened that somebody may want to be told of, written in the transaction that made it happen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from defectoscope.database import Event, Severity


def record_event(
    session: Session, *, kind: str, subject: str, message: str, severity: Severity = Severity.INFO, **details: Any
) -> None:
    """Write an event; it is there if the transaction commits, and only then.

    Args:
        session: of the transaction that makes it happen.
        kind: what kind of thing happened, such as ``training.failed``.
        subject: what it is about, such as ``training_run:6`` or ``model:3``.
        message: one sentence for a person.
        severity: how much it matters.
        details: JSON-ready facts for a program.
    """
    session.add(Event(kind=kind, subject=subject, message=message, severity=severity, details=details))


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
