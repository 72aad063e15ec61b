"""What people ask of training runs. Read only."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from defectoscope.database import DatasetRevision, ModelVersion, TrainingMetric, TrainingRun
from defectoscope.errors.training import TrainingRunNotFound


@dataclass(frozen=True, slots=True, kw_only=True)
class RunView:
    """A training run with its dataset, its figures and the model version that came out."""

    run: TrainingRun
    #: Such as ``steel@1``.
    dataset: str
    model_version: int | None
    #: Epoch to name to value, in the order of the epochs.
    metrics: dict[int, dict[str, float]]


def view_run(session: Session, run_id: int) -> RunView:
    """Return one training run.

    Raises:
        TrainingRunNotFound: there is none.
    """
    views = _views(session, _runs().where(TrainingRun.id == run_id))
    if not views:
        raise TrainingRunNotFound(f"There is no training run {run_id}.", run_id=run_id)
    return views[0]


def list_runs(session: Session, *, before: int | None = None, limit: int = 50) -> list[RunView]:
    """Return training runs, newest first, those with an id below ``before``."""
    statement = _runs()
    if before is not None:
        statement = statement.where(TrainingRun.id < before)
    return _views(session, statement.order_by(TrainingRun.id.desc()).limit(limit))


def _runs() -> Select[TrainingRun, DatasetRevision, int | None]:
    return (
        select(TrainingRun, DatasetRevision, ModelVersion.number)
        .join(DatasetRevision, DatasetRevision.id == TrainingRun.dataset_revision_id)
        .outerjoin(ModelVersion, ModelVersion.training_run_id == TrainingRun.id)
    )


def _views(session: Session, statement: Select[TrainingRun, DatasetRevision, int | None]) -> list[RunView]:
    rows = session.execute(statement).all()
    metrics: dict[int, dict[int, dict[str, float]]] = defaultdict(dict)
    for metric in session.scalars(
        select(TrainingMetric)
        .where(TrainingMetric.run_id.in_([run.id for run, _, _ in rows]))
        .order_by(TrainingMetric.run_id, TrainingMetric.epoch, TrainingMetric.name)
    ):
        metrics[metric.run_id].setdefault(metric.epoch, {})[metric.name] = metric.value
    return [
        RunView(
            run=run,
            dataset=f"{revision.name}@{revision.number}",
            model_version=number,
            metrics=metrics[run.id],
        )
        for run, revision, number in rows
    ]
