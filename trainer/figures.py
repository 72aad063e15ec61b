"""What the database knows of training, shown to Prometheus by every trainer alike.

A run works in a process of its own, on any machine, and writes what it does into rows. They are read when Prometheus
asks: nothing has to pass between the processes, and nothing is lost with one of them. Counters are sums over rows that
are never deleted, so that they never fall.
"""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy.orm import Session

from defectoscope.database import RunTrigger, TrainingRunState
from defectoscope.metrics import Family, Reading
from defectoscope.registry.tally import count_decisions
from defectoscope.training.progress import (
    RunningRun,
    count_ended_runs,
    count_nights,
    list_running_runs,
    sum_stage_seconds,
)

ENDED_RUNS = Family(
    name="defectoscope_training_runs_total",
    meaning="Training runs that have ended; `code` is that of the error, empty for those that succeeded.",
    kind="counter",
    labels=("trigger", "outcome", "code"),
)
STAGE = Family(
    name="defectoscope_training_stage", meaning="1 for the stage that a running run is in.", labels=("run", "stage")
)
STAGE_SECONDS = Family(
    name="defectoscope_training_stage_seconds_total",
    meaning="Time that a stage took, of all runs together; a stage counts when it ends.",
    kind="counter",
    labels=("stage",),
)
EPOCHS = Family(name="defectoscope_training_epochs", meaning="Epochs that a running run has trained.", labels=("run",))
IMAGES_PER_SECOND = Family(
    name="defectoscope_training_images_per_second",
    meaning="Images trained on a second, in the last epoch of a running run.",
    labels=("run",),
)
LAST_IOU = Family(
    name="defectoscope_training_validation_iou",
    meaning="IoU of the defect class on the validation images after the last epoch, at its best threshold.",
    labels=("run",),
)
BEST_IOU = Family(
    name="defectoscope_training_best_validation_iou",
    meaning="Highest such IoU of the epochs of a running run.",
    labels=("run",),
)
DECISIONS = Family(
    name="defectoscope_model_decisions_total",
    meaning="Lines of the ledger by action: `promoted` and `refused` are the gate's answers, and people's.",
    kind="counter",
    labels=("action",),
)
NIGHTS = Family(
    name="defectoscope_nights_total",
    meaning="Nights held, by what they came to: a training run, or a reason why there is none.",
    kind="counter",
    labels=("state",),
)
LAST_NIGHT = Family(
    name="defectoscope_last_night_timestamp_seconds",
    meaning="When the last night was held, seconds since 1970; absent before the first one.",
)
FAMILIES = (
    ENDED_RUNS,
    STAGE,
    STAGE_SECONDS,
    EPOCHS,
    IMAGES_PER_SECOND,
    LAST_IOU,
    BEST_IOU,
    DECISIONS,
    NIGHTS,
    LAST_NIGHT,
)


def read_figures(session: Session) -> Iterator[Reading]:
    """Yield what the database knows of training."""
    yield from _ended(session)
    for stage, seconds in sum_stage_seconds(session).items():
        yield STAGE_SECONDS, (stage,), seconds
    for run in list_running_runs(session):
        yield from _running(run)
    for action, count in count_decisions(session).items():
        yield DECISIONS, (action.value,), count
    nights = count_nights(session)
    for night_state, count in nights.held.items():
        yield NIGHTS, (night_state.value,), count
    if nights.last_at_s is not None:
        yield LAST_NIGHT, (), nights.last_at_s


def _running(run: RunningRun) -> Iterator[Reading]:
    name = (str(run.run_id),)
    if run.stage:
        yield STAGE, (*name, run.stage), 1
    yield EPOCHS, name, run.epochs
    if "images_per_s" in run.figures:
        yield IMAGES_PER_SECOND, name, run.figures["images_per_s"]
    if "val_iou_best" in run.figures:
        yield LAST_IOU, name, run.figures["val_iou_best"]
    if run.best_iou is not None:
        yield BEST_IOU, name, run.best_iou


def _ended(session: Session) -> Iterator[Reading]:
    none = {
        (trigger.value, state.value, ""): 0 for trigger in RunTrigger for state in TrainingRunState if state.is_final
    }
    counted = {(runs.trigger.value, runs.state.value, runs.code): runs.count for runs in count_ended_runs(session)}
    # What has not happened yet is 0: an alert needs the step from there.
    for labels, count in {**none, **counted}.items():
        yield ENDED_RUNS, labels, count
