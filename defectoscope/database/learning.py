"""Tables of learning: dataset revisions, training runs, model versions, evaluations, champions and promotions."""

from __future__ import annotations

from enum import StrEnum

from sqlalchemy import CheckConstraint, ForeignKey, Index, String, UniqueConstraint, text
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


class TrainingRun(Base):
    """One training, owned by a trainer through a lease as a chunk is by a worker."""

    __tablename__ = "training_runs"

    id: Mapped[Id]
    state: Mapped[TrainingRunState] = mapped_column(
        states(TrainingRunState), server_default=TrainingRunState.PENDING.value
    )
    dataset_revision_id: Mapped[int] = mapped_column(ForeignKey("dataset_revisions.id"))
    config: Mapped[Json] = mapped_column(comment="the whole recipe, defaults included")
    figures: Mapped[Json | None] = mapped_column(comment="what the run found, beside the metrics of its epochs")
    stage: Mapped[str | None] = mapped_column(String(32), comment="what the trainer is doing now")
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


class ModelVersion(Base):
    """A served model: a number without gaps, a contract, and one file for each variant."""

    __tablename__ = "model_versions"

    id: Mapped[Id]
    number: Mapped[int] = mapped_column(unique=True)
    contract: Mapped[Json] = mapped_column(comment="what the file's own metadata says")
    training_run_id: Mapped[int | None] = mapped_column(ForeignKey("training_runs.id"), unique=True)
    dataset_revision_id: Mapped[int | None] = mapped_column(ForeignKey("dataset_revisions.id"))
    created_at: Mapped[CreatedAt]

    __table_args__ = (CheckConstraint("number > 0", name="number"),)


class ModelVariant(Base):
    """One file of a model version, checked against the trained network before it is registered."""

    __tablename__ = "model_variants"

    id: Mapped[Id]
    model_version_id: Mapped[int] = mapped_column(ForeignKey("model_versions.id", ondelete="CASCADE"))
    precision: Mapped[str] = mapped_column(String(16), comment="fp32, fp16 or int8")
    key: Mapped[str]
    sha256: Mapped[Sha256]
    size_bytes: Mapped[int]
    parity: Mapped[Json] = mapped_column(comment="largest probability difference, mask IoU, flipped verdicts, images")
    created_at: Mapped[CreatedAt]

    __table_args__ = (UniqueConstraint("model_version_id", "precision"),)


class Evaluation(Base):
    """A model variant scored on the validation side of a dataset revision."""

    __tablename__ = "evaluations"

    id: Mapped[Id]
    model_version_id: Mapped[int] = mapped_column(ForeignKey("model_versions.id", ondelete="CASCADE"), index=True)
    dataset_revision_id: Mapped[int] = mapped_column(ForeignKey("dataset_revisions.id"))
    precision: Mapped[str] = mapped_column(String(16))
    created_at: Mapped[CreatedAt]


class EvaluationImage(Base):
    """Pixel counts of one image of an evaluation."""

    __tablename__ = "evaluation_images"

    evaluation_id: Mapped[int] = mapped_column(ForeignKey("evaluations.id", ondelete="CASCADE"), primary_key=True)
    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"), primary_key=True)
    tp: Mapped[int]
    fp: Mapped[int]
    fn: Mapped[int]
    tn: Mapped[int]


class Champion(Base):
    """The model version in service: one row for each scope."""

    __tablename__ = "champions"

    scope: Mapped[str] = mapped_column(String(64), primary_key=True)
    model_version_id: Mapped[int] = mapped_column(ForeignKey("model_versions.id"))
    since: Mapped[CreatedAt]


class Promotion(Base):
    """A line of the append-only ledger: which version went into service, when, by whom and why."""

    __tablename__ = "promotions"

    id: Mapped[Id]
    scope: Mapped[str] = mapped_column(String(64))
    model_version_id: Mapped[int] = mapped_column(ForeignKey("model_versions.id"))
    previous_version_id: Mapped[int | None] = mapped_column(ForeignKey("model_versions.id"))
    actor: Mapped[str]
    reason: Mapped[str]
    figures: Mapped[Json]
    created_at: Mapped[CreatedAt]
