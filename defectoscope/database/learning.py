"""Tables of learning: which side of the split an image is on, dataset revisions, training runs and nights."""

from __future__ import annotations

from datetime import date
from enum import StrEnum

from sqlalchemy import Date, ForeignKey, Index, String, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from defectoscope.database.base import Base, CreatedAt, Id, Json, Moment, Sha256, states


class Split(StrEnum):
    """Which side of training an image is on."""

    TRAIN = "train"
    VAL = "val"


class TrainingRunState(StrEnum):
    """Where a training run is; the last two are final."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"

    @property
    def is_final(self) -> bool:
        """Whether the run has ended."""
        return self in {TrainingRunState.SUCCEEDED, TrainingRunState.FAILED}


class RunTrigger(StrEnum):
    """Who asked for a training run."""

    MANUAL = "manual"
    NIGHT = "night"


class NightState(StrEnum):
    """What a night came to: a training run, or a reason why there is none."""

    STARTED = "started"
    SKIPPED = "skipped"


class SplitAssignment(Base):
    """The side of the split an image is on, for ever and in every dataset."""

    __tablename__ = "split_assignments"

    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"), primary_key=True)
    split: Mapped[Split] = mapped_column(states(Split))
    group_key: Mapped[str] = mapped_column(index=True, comment="images of one group stand on one side")
    reason: Mapped[str] = mapped_column(String(32), comment="why this side: given, part, near_duplicate, drawn, ...")
    created_at: Mapped[CreatedAt]


class DatasetRevision(Base):
    """An immutable set of labelled images, known by the hash of its manifest."""

    __tablename__ = "dataset_revisions"

    id: Mapped[Id]
    name: Mapped[str] = mapped_column(comment="the dataset it is a revision of")
    number: Mapped[int] = mapped_column(comment="1, 2, 3 within the name")
    sha256: Mapped[Sha256] = mapped_column(comment="of the manifest")
    manifest_key: Mapped[str]
    train_count: Mapped[int]
    val_count: Mapped[int]
    group_count: Mapped[int] = mapped_column(server_default="0", comment="groups that are never split; 0: not counted")
    created_at: Mapped[CreatedAt]

    __table_args__ = (UniqueConstraint("name", "number"), UniqueConstraint("name", "sha256"))


class DatasetItem(Base):
    """One labelled image of a revision, on one side of the split."""

    __tablename__ = "dataset_items"

    revision_id: Mapped[int] = mapped_column(ForeignKey("dataset_revisions.id", ondelete="CASCADE"), primary_key=True)
    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"), primary_key=True)
    label_id: Mapped[int] = mapped_column(ForeignKey("labels.id"))
    name: Mapped[str] = mapped_column(comment="file name it was imported under")
    split: Mapped[Split] = mapped_column(states(Split))
    group_key: Mapped[str] = mapped_column(server_default="", comment="unit of resampling; empty: the image alone")


class TrainingRun(Base):
    """One training, owned by a trainer through a lease as a chunk is by a worker."""

    __tablename__ = "training_runs"

    id: Mapped[Id]
    state: Mapped[TrainingRunState] = mapped_column(
        states(TrainingRunState), server_default=TrainingRunState.PENDING.value
    )
    dataset_revision_id: Mapped[int] = mapped_column(ForeignKey("dataset_revisions.id"))
    trigger: Mapped[RunTrigger] = mapped_column(states(RunTrigger), server_default=RunTrigger.MANUAL.value)
    config: Mapped[Json] = mapped_column(comment="the whole recipe, defaults included")
    figures: Mapped[Json | None] = mapped_column(comment="what the run found, beside the metrics of its epochs")
    stage: Mapped[str | None] = mapped_column(String(32), comment="what the trainer is doing now")
    checkpoint: Mapped[Json | None] = mapped_column(comment="key, sha256 and epoch of where another trainer goes on")
    report_key: Mapped[str | None] = mapped_column(comment="object key of the page with curves and overlays")
    attempts: Mapped[int] = mapped_column(server_default="0", comment="counted at claim, so a kill counts")
    lease_owner: Mapped[str | None]
    lease_token: Mapped[int] = mapped_column(server_default="0")
    lease_expires_at: Mapped[Moment | None]
    dispatched_at: Mapped[Moment | None]
    started_at: Mapped[Moment | None]
    finished_at: Mapped[Moment | None]
    error_code: Mapped[str | None]
    error_message: Mapped[str | None]
    created_at: Mapped[CreatedAt]

    __table_args__ = (
        Index("ix_training_runs_unfinished", "id", postgresql_where=text("state IN ('pending', 'running')")),
    )


class TrainingMetric(Base):
    """One figure of one epoch."""

    __tablename__ = "training_metrics"

    run_id: Mapped[int] = mapped_column(ForeignKey("training_runs.id", ondelete="CASCADE"), primary_key=True)
    epoch: Mapped[int] = mapped_column(primary_key=True, comment="1 is the first")
    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    value: Mapped[float]
    created_at: Mapped[CreatedAt]


class Night(Base):
    """One night of the schedule: at most one row for each date, however many beats there are."""

    __tablename__ = "nights"

    id: Mapped[Id]
    night: Mapped[date] = mapped_column(Date, unique=True, comment="of its evening: noon to noon in the time zone set")
    state: Mapped[NightState] = mapped_column(states(NightState))
    reason: Mapped[str] = mapped_column(comment="one sentence")
    dataset_revision_id: Mapped[int | None] = mapped_column(ForeignKey("dataset_revisions.id"))
    new_labels: Mapped[int | None]
    training_run_id: Mapped[int | None] = mapped_column(ForeignKey("training_runs.id"), unique=True)
    created_at: Mapped[CreatedAt]
