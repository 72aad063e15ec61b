"""The ledger: every decision about a version is one line, one event and one transaction, and none is ever changed.

Decisions wait for each other. Each line bears the moment at which it was written under that lock, later than the line
before it: the order of the lines, of their moments and of what really happened is the same one.
"""

from __future__ import annotations

from datetime import datetime
from enum import Enum
from typing import Any, Final, Literal

from sqlalchemy import func, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from defectoscope.crash_points import CrashPoint, crash_point
from defectoscope.database import Champion, Database, LedgerAction, ModelVersion, Promotion, Severity
from defectoscope.errors.api import InvalidRequest
from defectoscope.errors.models import AlreadyChampion, ChampionChanged, ModelRetired
from defectoscope.events import record_event
from defectoscope.registry.history import LedgerLine
from defectoscope.registry.versions import (
    DEFAULT_SCOPE,
    SERVED_PRECISION,
    champion_or_none,
    find_file,
    find_version,
)


class _Any(Enum):
    ANY = "any"


#: Whatever is in service.
ANY: Final = _Any.ANY
#: A version's number; None for "nothing is in service yet"; or `ANY`.
ExpectedChampion = int | Literal[_Any.ANY] | None


def promote(
    *,
    database: Database,
    number: int,
    actor: str,
    reason: str,
    figures: dict[str, Any],
    expected_champion: ExpectedChampion = ANY,
) -> LedgerLine:
    """Put a version into service.

    Args:
        database: where the ledger is.
        number: of the version.
        actor: who decided, such as an account's name or ``training run 6``.
        reason: why, for whoever reads the ledger in a year.
        figures: JSON-ready: what the gate found, or nothing.
        expected_champion: what the decision was made against; when something else is in service by now, it is void.

    Returns:
        The line of the ledger.

    Raises:
        ModelVersionNotFound: no such number.
        ModelRetired, ModelWeightsDropped, ModelVariantUnavailable: it cannot serve.
        AlreadyChampion: it serves already.
        ChampionChanged: another version is in service than the expected one.
        InvalidRequest: actor or reason is empty.
    """
    with database.transaction() as session:
        lock_ledger(session)
        version = find_version(session, number)
        check_serviceable(session, version)
        champion = champion_or_none(session)
        if champion is not None and champion.id == version.id:
            raise AlreadyChampion(f"Model version {number} is in service already.", number=number)
        check_champion(champion, expected_champion)
        return put_into_service(
            session, version, action=LedgerAction.PROMOTED, actor=actor, reason=reason, figures=figures
        )


def promote_first(*, database: Database, number: int, actor: str) -> bool:
    """Put a version into service if nothing is in service yet.

    Returns:
        Whether it was promoted.

    Raises:
        ModelVersionNotFound, ModelRetired, ModelWeightsDropped, ModelVariantUnavailable: it cannot serve.
    """
    with database.transaction() as session:
        lock_ledger(session)
        if champion_or_none(session) is not None:
            return False
        version = find_version(session, number)
        check_serviceable(session, version)
        put_into_service(
            session, version, action=LedgerAction.PROMOTED, actor=actor, reason="first version", figures={}
        )
        return True


def refuse(*, database: Database, number: int, actor: str, reason: str, figures: dict[str, Any]) -> LedgerLine:
    """Write down that a challenger was not promoted; the champion stays.

    Args:
        database: where the ledger is.
        number: of the challenger.
        actor: who decided.
        reason: why, one sentence.
        figures: JSON-ready: what the gate found.

    Returns:
        The line of the ledger.

    Raises:
        ModelVersionNotFound: no such number.
        InvalidRequest: actor or reason is empty.
    """
    with database.transaction() as session:
        lock_ledger(session)
        version = find_version(session, number)
        champion = champion_or_none(session)
        stays = "nothing is in service" if champion is None else f"version {champion.number} stays in service"
        return append_line(
            session,
            action=LedgerAction.REFUSED,
            version=version,
            previous=champion,
            actor=actor,
            reason=reason,
            figures=figures,
            message=f"Model version {number} was refused; {stays}.",
        )


def lock_ledger(session: Session) -> None:
    """Wait for other decisions to end, also for the one that writes the first champion: no row can be locked yet."""
    session.execute(text("SELECT pg_advisory_xact_lock(hashtext('champions'))"))


def check_serviceable(session: Session, version: ModelVersion) -> None:
    """Refuse a version that must not, or cannot, be put into service.

    Raises:
        ModelRetired, ModelWeightsDropped, ModelVariantUnavailable: as they say.
    """
    find_file(session, version.number, SERVED_PRECISION)
    if version.retired_at is not None:
        raise ModelRetired(f"Model version {version.number} was retired.", number=version.number)


def check_champion(champion: ModelVersion | None, expected: ExpectedChampion) -> None:
    """Refuse a decision that was made against another champion.

    Raises:
        ChampionChanged: it was.
    """
    present = None if champion is None else champion.number
    if expected is ANY or present == expected:
        return
    was = "nothing was in service" if expected is None else f"version {expected} was in service"
    now = "nothing is" if present is None else f"version {present} is"
    raise ChampionChanged(f"When this was decided {was}, and now {now}.", expected=expected, champion=present)


def put_into_service(
    session: Session,
    version: ModelVersion,
    *,
    action: Literal[LedgerAction.PROMOTED, LedgerAction.ROLLED_BACK],
    actor: str,
    reason: str,
    figures: dict[str, Any],
) -> LedgerLine:
    """Make a version the champion, under the ledger's lock, and write the line."""
    previous = champion_or_none(session)
    back = "back " if action is LedgerAction.ROLLED_BACK else ""
    instead = "" if previous is None else f" in place of version {previous.number}"
    line = append_line(
        session,
        action=action,
        version=version,
        previous=previous,
        actor=actor,
        reason=reason,
        figures=figures,
        message=f"Model version {version.number} is {back}in service{instead}.",
        severity=Severity.WARNING if action is LedgerAction.ROLLED_BACK else Severity.INFO,
    )
    crash_point(CrashPoint.DECISION_WRITTEN)
    statement = insert(Champion).values(scope=DEFAULT_SCOPE, model_version_id=version.id, since=line.created_at)
    session.execute(
        statement.on_conflict_do_update(
            index_elements=["scope"],
            set_={"model_version_id": statement.excluded.model_version_id, "since": statement.excluded.since},
        )
    )
    crash_point(CrashPoint.CHAMPION_WRITTEN)
    return line


def append_line(
    session: Session,
    *,
    action: LedgerAction,
    version: ModelVersion,
    actor: str,
    reason: str,
    figures: dict[str, Any],
    message: str,
    previous: ModelVersion | None = None,
    severity: Severity = Severity.INFO,
) -> LedgerLine:
    """Write a line and its event, under the ledger's lock.

    Args:
        session: of the transaction that decides.
        action: what was decided.
        version: about which version.
        actor: by whom.
        reason: why.
        figures: JSON-ready.
        message: what the event says, one sentence.
        previous: the version in service until then, where that matters.
        severity: of the event.

    Raises:
        InvalidRequest: actor or reason is empty.
    """
    if not actor.strip() or not reason.strip():
        raise InvalidRequest("A decision about a model version needs an actor and a reason; neither may be empty.")
    row = Promotion(
        scope=DEFAULT_SCOPE,
        action=action,
        model_version_id=version.id,
        previous_version_id=None if previous is None else previous.id,
        actor=actor,
        reason=reason,
        figures=figures,
        created_at=_next_moment(session),
    )
    session.add(row)
    session.flush()
    record_event(
        session,
        kind=f"model.{action.value}",
        subject=f"model:{version.number}",
        message=message,
        severity=severity,
        model_version=version.number,
        previous_version=None if previous is None else previous.number,
        actor=actor,
        reason=reason,
        ledger_line=row.id,
    )
    return LedgerLine(
        id=row.id,
        action=action,
        number=version.number,
        previous=None if previous is None else previous.number,
        actor=actor,
        reason=reason,
        figures=figures,
        created_at=row.created_at,
    )


def _next_moment(session: Session) -> datetime:
    """Return the present moment, later than that of every line.

    Not the moment at which the transaction began: it may have waited for the lock while another line was written. And
    a clock that is set back must not write a line into the past.
    """
    after_the_last = func.max(Promotion.created_at) + text("interval '1 microsecond'")
    moment: datetime = session.scalars(
        select(func.greatest(func.clock_timestamp(), after_the_last)).where(Promotion.scope == DEFAULT_SCOPE)
    ).one()
    return moment
