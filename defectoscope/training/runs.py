"""Training runs as rows: asked for, claimed by a lease, reported on, ended. The training itself is the trainer's."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import Interval, cast, func, or_, select, update
from sqlalchemy.dialects.postgresql import JSONB, insert
from sqlalchemy.orm import Session

from defectoscope.database import Database, TrainingMetric, TrainingRun, TrainingRunState, after_commit
from defectoscope.errors import DefectoscopeError, TrainerLost
from defectoscope.queue import Queue, messages, send_or_leave


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimedRun:
    """A run that this trainer holds. Every later write names the token, so that a successor cannot be overwritten."""

    run_id: int
    token: int
    dataset_revision_id: int
    config: dict[str, Any]


def request_training(*, session: Session, queue: Queue, dataset_revision_id: int, config: dict[str, Any]) -> int:
    """Record a training run on a dataset revision; a trainer is asked for it after the commit.

    Returns:
        The run's id.
    """
    run = TrainingRun(dataset_revision_id=dataset_revision_id, config=config, dispatched_at=func.now())
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
                started_at=func.now(),
            )
            .returning(TrainingRun.lease_token, TrainingRun.dataset_revision_id, TrainingRun.config)
        ).one_or_none()
    if row is None:
        return None
    return ClaimedRun(run_id=run_id, token=row.lease_token, dataset_revision_id=row[1], config=row.config)


def report_stage(*, database: Database, run: ClaimedRun, stage: str | None, lease_s: int) -> bool:
    """Renew the lease and, when given, name the stage.

    Returns:
        False when the run is no longer ours.
    """
    with database.transaction() as session:
        values: dict[str, Any] = {"lease_expires_at": _from_now(lease_s)}
        if stage is not None:
            values["stage"] = stage
        owned = session.execute(update(TrainingRun).where(*_ours(run)).values(**values).returning(TrainingRun.id))
        return owned.one_or_none() is not None


def record_config(*, database: Database, run: ClaimedRun, config: dict[str, Any]) -> None:
    """Replace the recipe that was asked for by the whole one, defaults included, while the run is ours."""
    with database.transaction() as session:
        session.execute(update(TrainingRun).where(*_ours(run)).values(config=config))


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
    with database.transaction() as session:
        known = func.coalesce(TrainingRun.figures, cast({}, JSONB))
        written = session.execute(
            update(TrainingRun)
            .where(*_ours(run))
            .values(figures=known.op("||")(cast(figures, JSONB)))
            .returning(TrainingRun.id)
        )
        return written.one_or_none() is not None


def complete_run(*, database: Database, run: ClaimedRun) -> bool:
    """End a run well. Returns False when it is no longer ours."""
    return _end(database, run, {"state": TrainingRunState.SUCCEEDED, "stage": None})


def fail_run(*, database: Database, run: ClaimedRun, error: DefectoscopeError) -> bool:
    """End a run with a named error. Returns False when it is no longer ours."""
    return _end(
        database,
        run,
        {"state": TrainingRunState.FAILED, "error_code": error.code, "error_message": error.message},
    )


def reconcile_runs(*, database: Database, queue: Queue, resend_after_s: int) -> None:
    """Send the message of pending runs again, and end runs whose trainer has gone silent."""
    with database.transaction() as session:
        lost = TrainerLost()
        session.execute(
            update(TrainingRun)
            .where(TrainingRun.state == TrainingRunState.RUNNING, TrainingRun.lease_expires_at < func.now())
            .values(
                state=TrainingRunState.FAILED,
                error_code=lost.code,
                error_message=lost.message,
                finished_at=func.now(),
                lease_owner=None,
                lease_expires_at=None,
            )
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


def metrics_of(session: Session, run_id: int) -> dict[int, dict[str, float]]:
    """Return the figures of a run: epoch to name to value."""
    epochs: dict[int, dict[str, float]] = {}
    for metric in session.scalars(
        select(TrainingMetric)
        .where(TrainingMetric.run_id == run_id)
        .order_by(TrainingMetric.epoch, TrainingMetric.name)
    ):
        epochs.setdefault(metric.epoch, {})[metric.name] = metric.value
    return epochs


def _end(database: Database, run: ClaimedRun, values: dict[str, Any]) -> bool:
    with database.transaction() as session:
        ended = session.execute(
            update(TrainingRun)
            .where(*_ours(run))
            .values(finished_at=func.now(), lease_owner=None, lease_expires_at=None, **values)
            .returning(TrainingRun.id)
        )
        return ended.one_or_none() is not None


def _ours(run: ClaimedRun) -> tuple[Any, ...]:
    return (
        TrainingRun.id == run.run_id,
        TrainingRun.lease_token == run.token,
        TrainingRun.state == TrainingRunState.RUNNING,
    )


def _from_now(seconds: int) -> Any:
    return func.now() + cast(timedelta(seconds=seconds), Interval)
