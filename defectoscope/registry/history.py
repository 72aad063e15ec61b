"""Reads the ledger: which version was in service at any moment, and what a rollback goes back to. It writes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Select, select
from sqlalchemy.orm import Session, aliased

from defectoscope.database import LedgerAction, ModelVersion, Promotion
from defectoscope.registry.versions import DEFAULT_SCOPE

#: The lines that change what is in service.
_CHANGES = (LedgerAction.PROMOTED, LedgerAction.ROLLED_BACK)


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerLine:
    """One decision.

    Attributes:
        id: rises from line to line.
        action: what was decided.
        number: about which version.
        previous: the version in service until then, or against which a challenger was refused; None without one.
        actor: by whom.
        reason: why.
        figures: what the decision rests on.
        created_at: when, UTC; rises from line to line.
    """

    id: int
    action: LedgerAction
    number: int
    previous: int | None
    actor: str
    reason: str
    figures: dict[str, Any]
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """The ledger up to a moment.

    Attributes:
        in_service: the line that put the champion of that moment into service; None before the first one.
        lines: newest first.
    """

    in_service: LedgerLine | None
    lines: Sequence[LedgerLine]


def history(session: Session, *, as_of: datetime | None = None, before: int | None = None, limit: int = 50) -> History:
    """Return what the ledger said at a moment.

    Args:
        session: of a transaction.
        as_of: aware; a line written at this very moment counts. None, or a moment to come, for now.
        before: only lines with an id below this, for the next page.
        limit: at most so many lines.
    """
    lines = _lines()
    if as_of is not None:
        lines = lines.where(Promotion.created_at <= as_of)
    in_service = lines.where(Promotion.action.in_(_CHANGES)).limit(1)
    if before is not None:
        lines = lines.where(Promotion.id < before)
    return History(in_service=next(iter(_read(session, in_service)), None), lines=_read(session, lines.limit(limit)))


def champion_as_of(session: Session, moment: datetime) -> ModelVersion | None:
    """Return the version that was in service at a moment, from the moment of its line on; None before the first."""
    return session.scalar(
        select(ModelVersion)
        .join(Promotion, Promotion.model_version_id == ModelVersion.id)
        .where(Promotion.scope == DEFAULT_SCOPE, Promotion.action.in_(_CHANGES), Promotion.created_at <= moment)
        .order_by(Promotion.created_at.desc(), Promotion.id.desc())
        .limit(1)
    )


def lines_of(session: Session, number: int) -> list[LedgerLine]:
    """Return every line about a version, oldest first."""
    return _read(session, _lines().where(ModelVersion.number == number))[::-1]


def find_decision(session: Session, number: int) -> LedgerLine | None:
    """Return the latest line that promoted or refused a version; None while nobody has decided.

    A trainer that was killed after the decision learns here that it is made.
    """
    decided = ModelVersion.number == number, Promotion.action.in_((LedgerAction.PROMOTED, LedgerAction.REFUSED))
    return next(iter(_read(session, _lines().where(*decided).limit(1))), None)


def service_stack(session: Session) -> list[int]:
    """Return the versions that rollbacks would walk through, the present champion last.

    A promotion puts a version on top. A rollback takes away all that is above the version it goes back to. So the
    second of two rollbacks goes further back, and never forward to the version that the first one took out of service.
    """
    stack: list[int] = []
    rows = session.execute(
        select(Promotion.action, ModelVersion.number)
        .join(ModelVersion, ModelVersion.id == Promotion.model_version_id)
        .where(Promotion.scope == DEFAULT_SCOPE, Promotion.action.in_(_CHANGES))
        .order_by(Promotion.id)
    )
    for action, number in rows:
        if action is LedgerAction.PROMOTED:
            stack.append(number)
            continue
        del stack[-1:]
        while stack and stack[-1] != number:
            stack.pop()
        if not stack:
            stack.append(number)
    return stack


def _lines() -> Select[Promotion, int, int | None]:
    previous = aliased(ModelVersion)
    return (
        select(Promotion, ModelVersion.number, previous.number)
        .join(ModelVersion, ModelVersion.id == Promotion.model_version_id)
        .outerjoin(previous, previous.id == Promotion.previous_version_id)
        .where(Promotion.scope == DEFAULT_SCOPE)
        .order_by(Promotion.created_at.desc(), Promotion.id.desc())
    )


def _read(session: Session, lines: Select[Promotion, int, int | None]) -> list[LedgerLine]:
    return [
        LedgerLine(
            id=line.id,
            action=line.action,
            number=number,
            previous=previous,
            actor=line.actor,
            reason=line.reason,
            figures=line.figures,
            created_at=line.created_at,
        )
        for line, number, previous in session.execute(lines)
    ]
