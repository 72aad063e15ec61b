"""Training runs: asked for here, done by a trainer."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Annotated, Any, Self

from pydantic import Field, StringConstraints

from api.schemas.base import LARGEST_INTEGER, Body, Moment, Problem, Text, shows
from api.schemas.datasets import DatasetReference
from defectoscope.database import RunTrigger, TrainingRunState
from defectoscope.training.queries import RunView

Key = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
#: What a recipe's fields can be. Which fields there are is the trainer's to say.
Scalar = bool | Annotated[int, Field(ge=-LARGEST_INTEGER, le=LARGEST_INTEGER)] | float | Text | None
Value = Scalar | Annotated[list[Scalar], Field(max_length=16)]


class TrainingRunIn(Body):
    """A training to be done. The trainer fills the recipe up from its preset and refuses what it does not know."""

    model_config = shows({"dataset": "steel", "config": {"preset": "quick", "epochs": 8}})

    dataset: DatasetReference
    config: dict[Key, Value] = Field(default_factory=dict, max_length=64)


class EpochOut(Body):
    """The figures of one epoch."""

    model_config = shows({"epoch": 1, "values": {"train_loss": 0.41, "val_iou_defect": 0.52}})

    epoch: int
    values: dict[str, float | None] = Field(description="null: not a finite number, which JSON has no word for")

    @classmethod
    def of(cls, epoch: int, values: Mapping[str, float]) -> Self:
        """Return the figures as they go over the wire."""
        return cls(epoch=epoch, values={name: value if isfinite(value) else None for name, value in values.items()})


class TrainingRunOut(Body):
    """A training run, as far as it has come."""

    model_config = shows(
        {
            "id": 6,
            "state": "succeeded",
            "stage": None,
            "trigger": "manual",
            "attempts": 1,
            "checkpoint_epoch": None,
            "has_report": True,
            "dataset": "steel@1",
            "config": {"preset": "quick", "epochs": 8},
            "error": None,
            "model_version": 3,
            "metrics": [EpochOut.example()],
            "figures": {
                "encoder_weights_used": "random",
                "device": "cpu",
                "train_images": 96,
                "val_images": 24,
                "autocast": "bf16",
                "epochs_run": 8,
                "best_epoch": 7,
            },
            "created_at": "2026-11-20T20:01:00Z",
            "started_at": "2026-11-20T20:01:01Z",
            "finished_at": "2026-11-20T20:03:12Z",
        }
    )

    id: int
    state: TrainingRunState
    stage: str | None
    trigger: RunTrigger
    attempts: int = Field(description="how often a trainer took it on; more than one after a kill")
    checkpoint_epoch: int | None = Field(description="the epoch after which another trainer could go on")
    has_report: bool = Field(description="whether the page with curves and overlays is there")
    dataset: str
    config: dict[str, Any]
    error: Problem | None
    model_version: int | None
    metrics: list[EpochOut]
    figures: dict[str, Any] | None = Field(
        description="what the run found beside the metrics: the encoder's start, device, best epoch, parity, scores"
    )
    created_at: Moment
    started_at: Moment | None
    finished_at: Moment | None

    @classmethod
    def of(cls, view: RunView) -> Self:
        """Return a run as it goes over the wire."""
        run = view.run
        return cls(
            id=run.id,
            state=run.state,
            stage=run.stage,
            trigger=run.trigger,
            attempts=run.attempts,
            checkpoint_epoch=run.checkpoint["epoch"] if run.checkpoint else None,
            has_report=run.report_key is not None,
            dataset=view.dataset,
            config=run.config,
            error=Problem.of(run.error_code, run.error_message),
            model_version=view.model_version,
            metrics=[EpochOut.of(epoch, values) for epoch, values in view.metrics.items()],
            figures=run.figures,
            created_at=run.created_at,
            started_at=run.started_at,
            finished_at=run.finished_at,
        )
