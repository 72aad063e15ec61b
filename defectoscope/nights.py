"""The night: once between noon and noon it asks for a training run on what was labelled since, or says why it does not.

Beat rings; which night it is and whether it was held already is decided in SQL, so that two beats make one run. The
training itself and what becomes of its model are the trainer's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import func, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from defectoscope.database import (
    Database,
    DatasetRevision,
    Night,
    NightState,
    RunTrigger,
    Severity,
    TrainingRun,
    TrainingRunState,
)
from defectoscope.dataset import find_revision, new_labels_since
from defectoscope.errors.datasets import DatasetNotFound
from defectoscope.events import record_event
from defectoscope.queue import Queue
from defectoscope.training import request_training

#: A night belongs to the day on whose evening it begins: what is before noon is still the night of the day before.
_NOON = timedelta(hours=12)


@dataclass(frozen=True, slots=True, kw_only=True)
class NightPlan:
    """What a night does.

    Attributes:
        dataset: name of the dataset; its latest revision is trained on.
        config: recipe of the run, as a person would ask for it.
        min_new_labels: with fewer the night is skipped.
        timezone: IANA name; decides which date a night has.
        clock_offset: added to the database's clock, to rehearse a night.
    """

    dataset: str
    config: dict[str, Any]
    min_new_labels: int
    timezone: str
    clock_offset: timedelta = timedelta()


def night_of(moment: datetime, *, timezone: str) -> date:
    """Return the date of the evening of the night that a moment lies in.

    >>> night_of(datetime.fromisoformat("2026-11-24T01:30+00:00"), timezone="UTC")
    datetime.date(2026, 11, 23)
    """
    return (moment.astimezone(ZoneInfo(timezone)).replace(tzinfo=None) - _NOON).date()


def hold_night(*, database: Database, queue: Queue, plan: NightPlan) -> Night | None:
    """Ask for tonight's training run, or write down why there is none.

    Returns:
        The night, or None when it was held already.
    """
    with database.transaction() as session:
        # Two beats wait for each other here, and the second finds the row of the first.
        session.execute(text("SELECT pg_advisory_xact_lock(hashtext('nights'))"))
        now = session.scalars(select(func.now())).one() + plan.clock_offset
        night = night_of(now, timezone=plan.timezone)
        if session.scalar(select(Night.id).where(Night.night == night)) is not None:
            return None
        found = _look(session, plan)
        run_id = None
        if found.reason is None and found.revision is not None:
            run_id = request_training(
                session=session,
                queue=queue,
                dataset_revision_id=found.revision.id,
                config=plan.config,
                trigger=RunTrigger.NIGHT,
            )
        state = NightState.SKIPPED if run_id is None else NightState.STARTED
        reason = found.reason or f"{_labels(found.new_labels)} of {_name(found.revision)} are new: run {run_id}."
        row = session.scalars(
            insert(Night)
            .values(
                night=night,
                state=state,
                reason=reason,
                dataset_revision_id=found.revision.id if found.revision else None,
                new_labels=found.new_labels,
                training_run_id=run_id,
            )
            .returning(Night)
        ).one()
        record_event(
            session,
            kind=f"night.{state}",
            severity=Severity.WARNING if found.is_wrong else Severity.INFO,
            subject=f"night:{night}",
            message=f"The night of {night} was {state}: {reason}",
            training_run_id=run_id,
        )
        return row


def list_nights(session: Session, *, before: int | None = None, limit: int = 50) -> Sequence[Night]:
    """Return nights, newest first, those with an id below ``before``."""
    statement = select(Night)
    if before is not None:
        statement = statement.where(Night.id < before)
    return session.scalars(statement.order_by(Night.id.desc()).limit(limit)).all()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """What there is to train on; ``reason`` says why it is not done, ``is_wrong`` that somebody should look."""

    revision: DatasetRevision | None = None
    new_labels: int | None = None
    reason: str | None = None
    is_wrong: bool = False


def _look(session: Session, plan: NightPlan) -> _Found:
    try:
        revision = find_revision(session, plan.dataset)
    except DatasetNotFound:
        return _Found(reason=f"There is no dataset {plan.dataset}.", is_wrong=True)
    unfinished = session.scalar(
        select(TrainingRun.id)
        .where(TrainingRun.state.in_((TrainingRunState.PENDING, TrainingRunState.RUNNING)))
        .order_by(TrainingRun.id)
        .limit(1)
    )
    new_labels = _count_new_labels(session, revision)
    if unfinished is not None:
        return _Found(
            revision=revision,
            new_labels=new_labels,
            reason=f"Training run {unfinished} has not ended.",
            is_wrong=True,
        )
    if new_labels < plan.min_new_labels:
        return _Found(
            revision=revision,
            new_labels=new_labels,
            reason=f"{_labels(new_labels)} of {_name(revision)} are new; {plan.min_new_labels} are needed.",
        )
    return _Found(revision=revision, new_labels=new_labels)


def _count_new_labels(session: Session, revision: DatasetRevision) -> int:
    """Count the labels of a revision that the last successful run on its dataset did not have."""
    trained = session.scalar(
        select(DatasetRevision)
        .join(TrainingRun, TrainingRun.dataset_revision_id == DatasetRevision.id)
        .where(TrainingRun.state == TrainingRunState.SUCCEEDED, DatasetRevision.name == revision.name)
        .order_by(TrainingRun.id.desc())
        .limit(1)
    )
    return new_labels_since(session, revision, since_revision=trained)


def _labels(count: int | None) -> str:
    return "1 label" if count == 1 else f"{count} labels"


def _name(revision: DatasetRevision | None) -> str:
    return f"{revision.name}@{revision.number}" if revision else ""
