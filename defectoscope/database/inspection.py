"""Tables of inspection: images, jobs, chunks, items, results, defects, labels and QA scores."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from sqlalchemy import CheckConstraint, ForeignKey, Index, String, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from defectoscope.database.base import Base, CreatedAt, Id, Json, Moment, Sha256, states


class JobState(StrEnum):
    """Where a job is. `pending` until its first images are enumerated; the last four are final."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    PARTIAL = "partial"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Whether the job has ended (a retry may open it again)."""
        return self not in {JobState.PENDING, JobState.RUNNING}


class ChunkState(StrEnum):
    """Where a chunk is. `split` means its images went on in chunks of their own."""

    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    SPLIT = "split"
    CANCELLED = "cancelled"


class ItemState(StrEnum):
    """Where one image of a job is."""

    PENDING = "pending"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Verdict(StrEnum):
    """What a result says about its image."""

    CLEAN = "clean"
    DEFECTIVE = "defective"


class Image(Base):
    """An image, known by its content: the same bytes are one row and one stored object."""

    __tablename__ = "images"

    id: Mapped[Id]
    sha256: Mapped[Sha256] = mapped_column(unique=True)
    key: Mapped[str] = mapped_column(comment="object key of the original bytes")
    size_bytes: Mapped[int]
    width: Mapped[int] = mapped_column(comment="pixels, after EXIF orientation")
    height: Mapped[int] = mapped_column(comment="pixels, after EXIF orientation")
    format: Mapped[str] = mapped_column(String(16))
    source_mode: Mapped[str] = mapped_column(String(16), comment="pixel mode before conversion to RGB, as Pillow names")
    source_uri: Mapped[str | None] = mapped_column(comment="where these bytes were first found")
    part_id: Mapped[str | None] = mapped_column(comment="the part or place it shows, when known")
    perceptual_hash: Mapped[int | None] = mapped_column(comment="64 bits, signed; null until the image is labelled")
    created_at: Mapped[CreatedAt]

    __table_args__ = (CheckConstraint("width > 0 AND height > 0", name="size"),)


class Job(Base):
    """One batch, pinned to the model version that was champion when it was submitted."""

    __tablename__ = "jobs"

    id: Mapped[Id]
    name: Mapped[str | None]
    state: Mapped[JobState] = mapped_column(states(JobState), server_default=JobState.PENDING.value)
    source: Mapped[Json] = mapped_column(comment="what was submitted: images, a prefix or an archive")
    params: Mapped[Json] = mapped_column(comment="threshold, min_area_px, overlays, mm_per_px, qa_min_iou")
    model_version_id: Mapped[int] = mapped_column(ForeignKey("model_versions.id"))
    idempotency_key: Mapped[str | None] = mapped_column(unique=True)
    request_sha256: Mapped[Sha256] = mapped_column(comment="tells a repeated request from a different one")
    enumeration_cursor: Mapped[str | None] = mapped_column(comment="how far enumeration has come; it resumes there")
    enumerated_at: Mapped[Moment | None] = mapped_column(comment="when every image had its item")
    dispatched_at: Mapped[Moment | None] = mapped_column(comment="when the enumeration message was last sent")
    cancel_requested_at: Mapped[Moment | None]
    finished_at: Mapped[Moment | None]
    error_code: Mapped[str | None]
    error_message: Mapped[str | None]
    created_at: Mapped[CreatedAt]

    __table_args__ = (
        Index("ix_jobs_unfinished", "id", postgresql_where=text("state IN ('pending', 'running')")),
        Index("ix_jobs_created_at", "created_at"),
    )


class Chunk(Base):
    """A slice of a job: the unit that a worker claims, holds by a lease and completes under its token."""

    __tablename__ = "chunks"

    id: Mapped[Id]
    job_id: Mapped[int] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), index=True)
    state: Mapped[ChunkState] = mapped_column(states(ChunkState), server_default=ChunkState.PENDING.value)
    attempts: Mapped[int] = mapped_column(server_default="0", comment="counted at claim, so a kill counts")
    lease_owner: Mapped[str | None]
    lease_token: Mapped[int] = mapped_column(server_default="0", comment="fencing token, raised by every claim")
    lease_expires_at: Mapped[Moment | None]
    dispatched_at: Mapped[Moment | None] = mapped_column(comment="when its message was last sent")
    finished_at: Mapped[Moment | None]
    created_at: Mapped[CreatedAt]

    __table_args__ = (Index("ix_chunks_owed", "id", postgresql_where=text("state IN ('pending', 'running')")),)


class JobItem(Base):
    """One image of a job, from the address it was submitted under to its result or its error."""

    __tablename__ = "job_items"

    id: Mapped[Id]
    job_id: Mapped[int] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    chunk_id: Mapped[int | None] = mapped_column(ForeignKey("chunks.id", ondelete="SET NULL"), index=True)
    name: Mapped[str] = mapped_column(comment="file name or path within what was submitted; unique in its job")
    state: Mapped[ItemState] = mapped_column(states(ItemState), server_default=ItemState.PENDING.value)
    source_uri: Mapped[str] = mapped_column(comment="s3://bucket/key of the bytes")
    source_etag: Mapped[str | None] = mapped_column(comment="when known: other bytes under the key are an error")
    label_uri: Mapped[str | None] = mapped_column(comment="s3://bucket/key of the ground-truth mask")
    image_id: Mapped[int | None] = mapped_column(ForeignKey("images.id"), index=True)
    label_id: Mapped[int | None] = mapped_column(ForeignKey("labels.id"))
    result_id: Mapped[int | None] = mapped_column(ForeignKey("results.id"), index=True)
    error_code: Mapped[str | None]
    error_message: Mapped[str | None]
    label_error_code: Mapped[str | None] = mapped_column(comment="the label was unusable; the result stands")
    label_error_message: Mapped[str | None]

    __table_args__ = (UniqueConstraint("job_id", "name"), Index("ix_job_items_job_id_state", "job_id", "state"))


class Result(Base):
    """One image under one model version and one set of parameters. Shared by every job that asks for the same."""

    __tablename__ = "results"

    id: Mapped[Id]
    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"))
    model_version_id: Mapped[int] = mapped_column(ForeignKey("model_versions.id"))
    params_sha256: Mapped[Sha256]
    verdict: Mapped[Verdict] = mapped_column(states(Verdict))
    defect_px: Mapped[int]
    defect_count: Mapped[int]
    threshold: Mapped[float]
    min_area_px: Mapped[int]
    mm_per_px: Mapped[float | None]
    mask_key: Mapped[str]
    mask_sha256: Mapped[Sha256]
    overlay_key: Mapped[str | None]
    variant: Mapped[str] = mapped_column(String(16), comment="fp32, fp16 or int8")
    provider: Mapped[str] = mapped_column(comment="execution provider that really ran")
    runtime_version: Mapped[str]
    latency_ms: Mapped[float] = mapped_column(comment="share of the model call's wall time")
    created_at: Mapped[CreatedAt]

    __table_args__ = (
        UniqueConstraint("image_id", "model_version_id", "params_sha256"),
        Index("ix_results_created_at", "created_at"),
    )


class DefectRow(Base):
    """One connected region of a result, measured in pixels of the image at its own resolution."""

    __tablename__ = "defects"

    id: Mapped[Id]
    result_id: Mapped[int] = mapped_column(ForeignKey("results.id", ondelete="CASCADE"))
    number: Mapped[int] = mapped_column(comment="1 is the largest of its result")
    x_min: Mapped[int]
    y_min: Mapped[int]
    x_max: Mapped[int] = mapped_column(comment="exclusive")
    y_max: Mapped[int] = mapped_column(comment="exclusive")
    area_px: Mapped[int]
    area_mm2: Mapped[float | None]
    centroid_x: Mapped[float]
    centroid_y: Mapped[float]
    major_axis_px: Mapped[float]
    minor_axis_px: Mapped[float]
    orientation_deg: Mapped[float]
    perimeter_px: Mapped[float]
    max_probability: Mapped[float]
    mean_probability: Mapped[float]
    touches_border: Mapped[bool]

    __table_args__ = (
        UniqueConstraint("result_id", "number"),
        Index("ix_defects_area_px", "area_px"),
        CheckConstraint("area_px > 0", name="area"),
    )


class Label(Base):
    """A ground-truth mask of an image."""

    __tablename__ = "labels"

    id: Mapped[Id]
    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"))
    key: Mapped[str] = mapped_column(comment="object key of the mask file as it was given")
    sha256: Mapped[Sha256]
    defect_px: Mapped[int]
    author: Mapped[str | None]
    source: Mapped[str] = mapped_column(comment="job:12, dataset:steel, ...")
    parent_result_id: Mapped[int | None] = mapped_column(ForeignKey("results.id"))
    created_at: Mapped[CreatedAt]

    __table_args__ = (UniqueConstraint("image_id", "sha256"),)


class QaScore(Base):
    """Pixel counts of a result against a label; every score is derived from these four."""

    __tablename__ = "qa_scores"

    result_id: Mapped[int] = mapped_column(ForeignKey("results.id", ondelete="CASCADE"), primary_key=True)
    label_id: Mapped[int] = mapped_column(ForeignKey("labels.id", ondelete="CASCADE"), primary_key=True, index=True)
    tp: Mapped[int]
    fp: Mapped[int]
    fn: Mapped[int]
    tn: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(server_default=text("now()"))

    __table_args__ = (CheckConstraint("tp >= 0 AND fp >= 0 AND fn >= 0 AND tn >= 0", name="counts"),)
