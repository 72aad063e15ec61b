"""The audit log: who asked for what, when, about which object, and what came of it. Lines are added and never changed.

A line is there before its act is done, so that no act is without one; its outcome is set once, when the act has ended.
A line without an outcome says that the process ended first. A trigger in the database refuses anything else.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from defectoscope.access.store import Principal
from defectoscope.database import AuditEntry

_LONGEST_SUBJECT = 200


def begin_entry(
    session: Session, *, principal: Principal, action: str, subject: str | None, request_id: str, address: str | None
) -> int:
    """Add a line for what is about to be done.

    Args:
        session: of a transaction of its own.
        principal: who asks.
        action: method and route.
        subject: what it is about, if that is known.
        request_id: under which the log has the rest.
        address: where the request comes from.

    Returns:
        The line's id.
    """
    entry = AuditEntry(
        token_id=principal.token_id,
        actor=principal.name,
        action=action,
        subject=_cut(subject),
        request_id=request_id,
        address=address,
    )
    session.add(entry)
    session.flush()
    return entry.id


def end_entry(
    session: Session, entry_id: int, *, status: int, error_code: str | None, subject: str | None = None
) -> None:
    """Set the outcome of a line, and what it made where that was not known before.

    Args:
        session: of a transaction of its own.
        entry_id: the line.
        status: HTTP status of the answer.
        error_code: stable code of the refusal or failure, or None.
        subject: what was made.
    """
    values: dict[str, object] = {"status": status, "error_code": error_code}
    if subject is not None:
        values["subject"] = _cut(subject)
    session.execute(update(AuditEntry).where(AuditEntry.id == entry_id).values(values))


def list_entries(
    session: Session, *, before: int | None = None, limit: int = 50, token_id: int | None = None
) -> Sequence[AuditEntry]:
    """Return lines, newest first, those with an id below ``before``; of one token when it is named."""
    statement = select(AuditEntry)
    if before is not None:
        statement = statement.where(AuditEntry.id < before)
    if token_id is not None:
        statement = statement.where(AuditEntry.token_id == token_id)
    return session.scalars(statement.order_by(AuditEntry.id.desc()).limit(limit)).all()


def _cut(subject: str | None) -> str | None:
    return None if subject is None else subject[:_LONGEST_SUBJECT]
