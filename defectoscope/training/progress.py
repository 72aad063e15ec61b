"""How training goes, all runs together: figures for monitoring. Read only.

They are read from the rows that a run writes anyway, so that they survive the process that trained, and the machine.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from defectoscope.database import Night, NightState, RunTrigger, TrainingMetric, TrainingRun, TrainingRunState

_UNFINISHED = (TrainingRunState.PENDING, TrainingRunState.RUNNING)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningRun:
    """A run that a trainer works on.

    Attributes:
        run_id: its id.
        stage: what the trainer is doing; empty before the first stage.
        epochs: epochs trained, by all trainers that had it.
        figures: of its last epoch, by name.
        best_iou: highest `val_iou_best` of its epochs; None before the first one.
    """

    run_id: int
    stage: str
    epochs: int
    figures: dict[str, float] = field(default_factory=dict)
    best_iou: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedRuns:
    """How many runs ended so. ``code`` is that of the error; empty for those that succeeded."""

    trigger: RunTrigger
    state: TrainingRunState
    code: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Nights:
    """The nights held so far, by what they came to, and when the last one was held (seconds since 1970, or None)."""

    held: dict[NightState, int]
    last_at_s: float | None


def count_unfinished_runs(session: Session) -> dict[TrainingRunState, int]:
    """Return how many runs wait and how many are worked on."""
    counted = dict(
        session.execute(
            select(TrainingRun.state, func.count())
            .where(text("training_runs.state IN ('pending', 'running')"))
            .group_by(TrainingRun.state)
        ).all()
    )
    return {state: counted.get(state, 0) for state in _UNFINISHED}


def count_ended_runs(session: Session) -> list[EndedRuns]:
    """Return how many runs ended how, since the beginning."""
    rows = session.execute(
        select(TrainingRun.trigger, TrainingRun.state, func.coalesce(TrainingRun.error_code, ""), func.count())
        .where(TrainingRun.state.not_in(_UNFINISHED))
        .group_by(TrainingRun.trigger, TrainingRun.state, TrainingRun.error_code)
    )
    return [EndedRuns(trigger=trigger, state=state, code=code, count=count) for trigger, state, code, count in rows]


def list_running_runs(session: Session) -> list[RunningRun]:
    """Return every run that is worked on, with the figures of its last epoch."""
    running = session.execute(
        select(TrainingRun.id, func.coalesce(TrainingRun.stage, "")).where(text("training_runs.state = 'running'"))
    ).all()
    found = []
    for run_id, stage in running:
        epochs, best_iou = session.execute(
            select(
                func.coalesce(func.max(TrainingMetric.epoch), 0),
                func.max(TrainingMetric.value).filter(TrainingMetric.name == "val_iou_best"),
            ).where(TrainingMetric.run_id == run_id)
        ).one()
        last = session.execute(
            select(TrainingMetric.name, TrainingMetric.value).where(
                TrainingMetric.run_id == run_id, TrainingMetric.epoch == epochs
            )
        )
        found.append(RunningRun(run_id=run_id, stage=stage, epochs=epochs, figures=dict(last.all()), best_iou=best_iou))
    return found


def sum_stage_seconds(session: Session) -> dict[str, float]:
    """Return the seconds that each stage took, of all runs together, since the beginning."""
    rows = session.execute(
        text(
            "SELECT spent.stage, sum(spent.seconds::double precision)"
            " FROM training_runs, jsonb_each_text(figures -> 'stage_seconds') AS spent (stage, seconds)"
            " GROUP BY spent.stage"
        )
    )
    return {stage: float(seconds) for stage, seconds in rows}


def count_nights(session: Session) -> Nights:
    """Return what the nights came to."""
    counted = dict(session.execute(select(Night.state, func.count()).group_by(Night.state)).all())
    last_at = session.scalar(select(func.max(Night.created_at)))
    return Nights(
        held={state: counted.get(state, 0) for state in NightState},
        last_at_s=None if last_at is None else last_at.timestamp(),
    )
