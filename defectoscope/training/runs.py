"""Training runs as rows: asked for, claimed by a lease, reported on, ended. The training itself is the trainer's."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import Interval, cast, func, or_, select, update
from sqlalchemy.dialects.postgresql import JSONB, insert
from sqlalchemy.orm import Session

from defectoscope.database import (
    Database,
    RunTrigger,
    Severity,
    TrainingMetric,
    TrainingRun,
    TrainingRunState,
    after_commit,
)
from defectoscope.errors import DefectoscopeError
from defectoscope.errors.training import TrainerLost, TrainingCancelled, TrainingRunNotCancellable, TrainingRunNotFound
from defectoscope.events import record_event
from defectoscope.queue import Queue, messages, send_or_leave


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """Where a run can go on from: an object in storage, written after this epoch."""

    key: str
    sha256: str
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimedRun:
    """A run that this trainer holds. Every later write names the token, so that a successor cannot be overwritten."""

    run_id: int
    token: int
    dataset_revision_id: int
    config: dict[str, Any]
    attempts: int = 1
    checkpoint: Checkpoint | None = None


def request_training(
    *,
    session: Session,
    queue: Queue,
    dataset_revision_id: int,
    config: dict[str, Any],
    trigger: RunTrigger = RunTrigger.MANUAL,
) -> int:
    """Record a training run on a dataset revision; a trainer is asked for it after the commit.

    Returns:
        The run's id.
    """
    run = TrainingRun(dataset_revision_id=dataset_revision_id, config=config, trigger=trigger, dispatched_at=func.now())
    session.add(run)
    session.flush()
    message = messages.run_training(run.id)
    after_commit(session, lambda: send_or_leave(queue, [message]))
    return run.id


def claim_run(*, database: Database, run_id: int, owner: str, lease_s: int) -> ClaimedRun | None:
    """Take a pending run, or None when nothing is owed there (a second delivery, an ended run)."""
    with database.transaction() as session:
        row = session.execute(
            update(TrainingRun)
            .where(TrainingRun.id == run_id, TrainingRun.state == TrainingRunState.PENDING)
            .values(
                state=TrainingRunState.RUNNING,
                lease_owner=owner,
                lease_token=TrainingRun.lease_token + 1,
                lease_expires_at=_from_now(lease_s),
                attempts=TrainingRun.attempts + 1,
                stage=None,
                started_at=func.coalesce(TrainingRun.started_at, func.now()),
            )
            .returning(
                TrainingRun.lease_token,
                TrainingRun.dataset_revision_id,
                TrainingRun.config,
                TrainingRun.attempts,
                TrainingRun.checkpoint,
            )
        ).one_or_none()
    if row is None:
        return None
    return ClaimedRun(
        run_id=run_id,
        token=row.lease_token,
        dataset_revision_id=row.dataset_revision_id,
        config=row.config,
        attempts=row.attempts,
        checkpoint=Checkpoint(**row.checkpoint) if row.checkpoint else None,
    )


def report_stage(*, database: Database, run: ClaimedRun, stage: str | None, lease_s: int) -> bool:
    """Renew the lease and, when given, name the stage.

    Returns:
        False when the run is no longer ours.
    """
    named = {} if stage is None else {"stage": stage}
    return _write(database, run, lease_expires_at=_from_now(lease_s), **named)


def record_config(*, database: Database, run: ClaimedRun, config: dict[str, Any]) -> None:
    """Replace the recipe that was asked for by the whole one, defaults included, while the run is ours."""
    _write(database, run, config=config)


def record_checkpoint(*, database: Database, run: ClaimedRun, checkpoint: Checkpoint) -> bool:
    """Say where another trainer can go on from; the object is in storage already.

    Returns:
        False when the run is no longer ours: nothing was written.
    """
    return _write(
        database, run, checkpoint={"key": checkpoint.key, "sha256": checkpoint.sha256, "epoch": checkpoint.epoch}
    )


def record_report(*, database: Database, run: ClaimedRun, key: str) -> bool:
    """Say where the page with curves and overlays is. Returns False when the run is no longer ours."""
    return _write(database, run, report_key=key)


def record_metrics(*, database: Database, run: ClaimedRun, epoch: int, values: dict[str, float]) -> bool:
    """Write the figures of an epoch; a repeated epoch replaces its figures.

    Returns:
        False when the run is no longer ours: nothing was written.
    """
    with database.transaction() as session:
        held = session.scalar(select(TrainingRun.id).where(*_ours(run)).with_for_update(key_share=True))
        if held is None:
            return False
        if not values:
            return True
        statement = insert(TrainingMetric).values(
            [{"run_id": run.run_id, "epoch": epoch, "name": name, "value": value} for name, value in values.items()]
        )
        session.execute(
            statement.on_conflict_do_update(
                index_elements=["run_id", "epoch", "name"], set_={"value": statement.excluded.value}
            )
        )
        return True


def record_figures(*, database: Database, run: ClaimedRun, figures: dict[str, Any]) -> bool:
    """Add to what the run found; a repeated name replaces its value.

    Args:
        database: holds the run.
        run: claimed.
        figures: JSON-ready values by name, finite numbers only.

    Returns:
        False when the run is no longer ours: nothing was written.
    """
    known = func.coalesce(TrainingRun.figures, cast({}, JSONB))
    return _write(database, run, figures=known.op("||")(cast(figures, JSONB)))


def add_stage_seconds(*, database: Database, run: ClaimedRun, stage: str, seconds: float) -> bool:
    """Add to the time that a stage of the run took, over all trainers that had it: `stage_seconds` of its figures.

    Returns:
        False when the run is no longer ours: nothing was written.
    """
    with database.transaction() as session:
        held = session.execute(select(TrainingRun.figures).where(*_ours(run)).with_for_update()).one_or_none()
        if held is None:
            return False
        spent: dict[str, float] = {**((held.figures or {}).get("stage_seconds") or {})}
        spent[stage] = round(spent.get(stage, 0.0) + seconds, 3)
        known = func.coalesce(TrainingRun.figures, cast({}, JSONB))
        session.execute(
            update(TrainingRun).where(*_ours(run)).values(figures=known.op("||")(cast({"stage_seconds": spent}, JSONB)))
        )
        return True


def complete_run(*, database: Database, run: ClaimedRun) -> bool:
    """End a run well, and raise an event. Returns False when it is no longer ours."""
    with database.transaction() as session:
        if not _end(session, _ours(run), state=TrainingRunState.SUCCEEDED, stage=None):
            return False
        record_event(
            session,
            kind="training.succeeded",
            subject=f"training_run:{run.run_id}",
            message=f"Training run {run.run_id} succeeded.",
        )
        return True


def fail_run(*, database: Database, run: ClaimedRun, error: DefectoscopeError) -> bool:
    """End a run with a named error, and raise an event. Returns False when it is no longer ours."""
    with database.transaction() as session:
        return _fail(session, _ours(run), error=error, run_id=run.run_id)


def release_run(*, database: Database, run: ClaimedRun, count_attempt: bool) -> bool:
    """Give a run back unfinished; it is owed again, from its last checkpoint.

    Args:
        database: holds the run.
        run: claimed.
        count_attempt: whether the run may be to blame; one that is given back so too often is given up.

    Returns:
        False when it is no longer ours.
    """
    return _write(
        database,
        run,
        state=TrainingRunState.PENDING,
        attempts=TrainingRun.attempts - (0 if count_attempt else 1),
        lease_owner=None,
        lease_expires_at=None,
        dispatched_at=None,
    )


def cancel_run(session: Session, run_id: int) -> None:
    """End a run that is wanted no more; a trainer that works on it notices when it next renews its lease.

    Raises:
        TrainingRunNotFound: there is no such run.
        TrainingRunNotCancellable: it has ended already.
    """
    if session.get(TrainingRun, run_id) is None:
        raise TrainingRunNotFound(f"There is no training run {run_id}.", run_id=run_id)
    unfinished = (TrainingRun.id == run_id, TrainingRun.state.in_((TrainingRunState.PENDING, TrainingRunState.RUNNING)))
    error = TrainingCancelled()
    if not _end(session, unfinished, state=TrainingRunState.FAILED, error_code=error.code, error_message=error.message):
        raise TrainingRunNotCancellable(f"Training run {run_id} has already ended.", run_id=run_id)
    record_event(
        session,
        kind="training.cancelled",
        subject=f"training_run:{run_id}",
        message=f"Training run {run_id} was cancelled.",
        code=error.code,
    )


def reconcile_runs(*, database: Database, queue: Queue, resend_after_s: int, max_attempts: int) -> None:
    """Send the message of owed runs again; a run whose trainer has gone silent is owed again, or given up.

    Args:
        database: holds the runs.
        queue: where messages go.
        resend_after_s: a message older than this is taken for lost.
        max_attempts: claims after which a run is given up as trainer_lost.
    """
    with database.transaction() as session:
        expired = (TrainingRun.state == TrainingRunState.RUNNING, TrainingRun.lease_expires_at < func.now())
        lost = session.scalars(
            select(TrainingRun.id).where(*expired, TrainingRun.attempts >= max_attempts).with_for_update()
        ).all()
        for run_id in lost:
            _fail(session, (TrainingRun.id == run_id, *expired), error=TrainerLost(), run_id=run_id)
        session.execute(
            update(TrainingRun)
            .where(*expired)
            .values(state=TrainingRunState.PENDING, lease_owner=None, lease_expires_at=None, dispatched_at=None)
        )
        owed = session.scalars(
            update(TrainingRun)
            .where(
                TrainingRun.state == TrainingRunState.PENDING,
                or_(
                    TrainingRun.dispatched_at.is_(None),
                    TrainingRun.dispatched_at < func.now() - cast(timedelta(seconds=resend_after_s), Interval),
                ),
            )
            .values(dispatched_at=func.now())
            .returning(TrainingRun.id)
        ).all()
        if owed:
            after_commit(session, lambda: send_or_leave(queue, [messages.run_training(run_id) for run_id in owed]))


def _fail(session: Session, which: tuple[Any, ...], *, error: DefectoscopeError, run_id: int) -> bool:
    """End a run with a named error and write the event, both or neither."""
    if not _end(session, which, state=TrainingRunState.FAILED, error_code=error.code, error_message=error.message):
        return False
    record_event(
        session,
        kind="training.failed",
        severity=Severity.ERROR,
        subject=f"training_run:{run_id}",
        message=f"Training run {run_id} failed: {error.message}",
        code=error.code,
    )
    return True


def _end(session: Session, which: tuple[Any, ...], **values: Any) -> bool:
    ended = session.execute(
        update(TrainingRun)
        .where(*which)
        .values(finished_at=func.now(), lease_owner=None, lease_expires_at=None, **values)
        .returning(TrainingRun.id)
    )
    return ended.one_or_none() is not None


def _write(database: Database, run: ClaimedRun, **values: Any) -> bool:
    with database.transaction() as session:
        written = session.execute(update(TrainingRun).where(*_ours(run)).values(**values).returning(TrainingRun.id))
        return written.one_or_none() is not None


def _ours(run: ClaimedRun) -> tuple[Any, ...]:
    return (
        TrainingRun.id == run.run_id,
        TrainingRun.lease_token == run.token,
        TrainingRun.state == TrainingRunState.RUNNING,
    )


def _from_now(seconds: int) -> Any:
    return func.now() + cast(timedelta(seconds=seconds), Interval)
