"""Tables of the registry: model versions, their files, evaluations, champions, the ledger and imports."""

from __future__ import annotations

from enum import StrEnum

from sqlalchemy import CheckConstraint, ForeignKey, Index, String, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from defectoscope.database.base import Base, CreatedAt, Id, Json, Moment, Sha256, states


class ModelOrigin(StrEnum):
    """Where a model version came from."""

    TRAINING = "training"
    IMPORT = "import"


class LedgerAction(StrEnum):
    """What a line of the ledger says was done."""

    PROMOTED = "promoted"
    REFUSED = "refused"
    ROLLED_BACK = "rolled_back"
    RETIRED = "retired"
    IMPORTED = "imported"
    WEIGHTS_DROPPED = "weights_dropped"


class ImportState(StrEnum):
    """Where an import is; the last two are final."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"

    @property
    def is_final(self) -> bool:
        """Whether the import has ended."""
        return self in {ImportState.SUCCEEDED, ImportState.FAILED}


class ModelVersion(Base):
    """A served model: a number without gaps, a contract, and one file for each variant."""

    __tablename__ = "model_versions"

    id: Mapped[Id]
    number: Mapped[int] = mapped_column(unique=True)
    origin: Mapped[ModelOrigin] = mapped_column(states(ModelOrigin), server_default=ModelOrigin.TRAINING.value)
    contract: Mapped[Json] = mapped_column(comment="what the file's own metadata says")
    training_run_id: Mapped[int | None] = mapped_column(ForeignKey("training_runs.id"), unique=True)
    dataset_revision_id: Mapped[int | None] = mapped_column(ForeignKey("dataset_revisions.id"))
    operating_point: Mapped[Json | None] = mapped_column(
        comment="how threshold and minimum area were chosen, error rates"
    )
    weights_key: Mapped[str | None] = mapped_column(comment="safetensors of the network, to fine-tune from")
    weights_sha256: Mapped[str | None] = mapped_column(String(64))
    retired_at: Mapped[Moment | None]
    weights_dropped_at: Mapped[Moment | None] = mapped_column(comment="files are gone, the record stays")
    created_at: Mapped[CreatedAt]

    __table_args__ = (CheckConstraint("number > 0", name="number"),)


class ModelVariant(Base):
    """One file of a model version, checked against the trained network; or why there is none of this precision."""

    __tablename__ = "model_variants"

    id: Mapped[Id]
    model_version_id: Mapped[int] = mapped_column(ForeignKey("model_versions.id", ondelete="CASCADE"))
    precision: Mapped[str] = mapped_column(String(16), comment="fp32, fp16 or int8")
    key: Mapped[str | None] = mapped_column(comment="object key; null when it was not published or was dropped")
    sha256: Mapped[str | None] = mapped_column(String(64))
    size_bytes: Mapped[int | None]
    parity: Mapped[Json] = mapped_column(comment="largest probability difference, mask IoU, flipped verdicts, images")
    reason: Mapped[str | None] = mapped_column(comment="why it was not published, one sentence")
    created_at: Mapped[CreatedAt]

    __table_args__ = (
        UniqueConstraint("model_version_id", "precision"),
        CheckConstraint(
            "key IS NULL OR (reason IS NULL AND sha256 IS NOT NULL AND size_bytes IS NOT NULL)", name="file"
        ),
    )


class Evaluation(Base):
    """A model variant scored on the validation side of a dataset revision."""

    __tablename__ = "evaluations"

    id: Mapped[Id]
    model_version_id: Mapped[int] = mapped_column(ForeignKey("model_versions.id", ondelete="CASCADE"), index=True)
    dataset_revision_id: Mapped[int] = mapped_column(ForeignKey("dataset_revisions.id"))
    precision: Mapped[str] = mapped_column(String(16))
    created_at: Mapped[CreatedAt]

    __table_args__ = (UniqueConstraint("model_version_id", "dataset_revision_id", "precision"),)


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
    """A line of the ledger: what was decided about a version, when, by whom and why. Only ever appended to."""

    __tablename__ = "promotions"

    id: Mapped[Id]
    scope: Mapped[str] = mapped_column(String(64))
    action: Mapped[LedgerAction] = mapped_column(states(LedgerAction), server_default=LedgerAction.PROMOTED.value)
    model_version_id: Mapped[int] = mapped_column(ForeignKey("model_versions.id"))
    previous_version_id: Mapped[int | None] = mapped_column(ForeignKey("model_versions.id"))
    actor: Mapped[str]
    reason: Mapped[str]
    figures: Mapped[Json]
    created_at: Mapped[CreatedAt]

    __table_args__ = (Index("ix_promotions_scope_created_at", "scope", "created_at"),)


class ModelImport(Base):
    """A foreign model file to be wrapped, checked and published by a trainer, owned through a lease."""

    __tablename__ = "model_imports"

    id: Mapped[Id]
    state: Mapped[ImportState] = mapped_column(states(ImportState), server_default=ImportState.PENDING.value)
    file_name: Mapped[str]
    key: Mapped[str] = mapped_column(comment="object key of the file as it was given")
    sha256: Mapped[Sha256]
    options: Mapped[Json] = mapped_column(comment="architecture, encoder, threshold, min_area_px, dataset, ...")
    actor: Mapped[str]
    attempts: Mapped[int] = mapped_column(server_default="0", comment="counted at claim, so a kill counts")
    lease_token: Mapped[int] = mapped_column(server_default="0")
    lease_expires_at: Mapped[Moment | None]
    dispatched_at: Mapped[Moment | None]
    finished_at: Mapped[Moment | None]
    model_version_id: Mapped[int | None] = mapped_column(ForeignKey("model_versions.id"), unique=True)
    error_code: Mapped[str | None]
    error_message: Mapped[str | None]
    created_at: Mapped[CreatedAt]

    __table_args__ = (
        Index("ix_model_imports_unfinished", "id", postgresql_where=text("state IN ('pending', 'running')")),
    )
