"""Tables of inspection: images, jobs, chunks, items, results, defects, labels and QA scores."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from enum import IntEnum, StrEnum

from sqlalchemy import CheckConstraint, ForeignKey, Index, Integer, SmallInteger, String, UniqueConstraint, text
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


class Priority(IntEnum):
    """Which jobs workers take chunks of first; a higher one goes before every lower one."""

    LOW = 0
    NORMAL = 1
    HIGH = 2


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
    deleted_at: Mapped[Moment | None] = mapped_column(comment="when retention gave the original bytes up")
    created_at: Mapped[CreatedAt]

    __table_args__ = (CheckConstraint("width > 0 AND height > 0", name="size"),)


class Job(Base):
    """One batch, pinned to the model version that was champion when it was submitted.

    The totals, from ``pending_images`` to ``dice_sum``, change in the transactions that change the items.
    """

    __tablename__ = "jobs"

    id: Mapped[Id]
    name: Mapped[str | None]
    state: Mapped[JobState] = mapped_column(states(JobState), server_default=JobState.PENDING.value)
    priority: Mapped[int] = mapped_column(SmallInteger, server_default="1", comment="0 low, 1 normal, 2 high")
    source: Mapped[Json] = mapped_column(comment="what was submitted: images, a prefix or an archive")
    params: Mapped[Json] = mapped_column(comment="threshold, min_area_px, overlays, mm_per_px, qa_min_iou")
    model_version_id: Mapped[int] = mapped_column(ForeignKey("model_versions.id"))
    token_id: Mapped[int | None] = mapped_column(
        ForeignKey("api_tokens.id"), comment="whose it is; null: submitted before there were tokens, or without one"
    )
    idempotency_key: Mapped[str | None]
    request_sha256: Mapped[Sha256] = mapped_column(comment="tells a repeated request from a different one")
    enumeration_cursor: Mapped[str | None] = mapped_column(comment="how far enumeration has come; it resumes there")
    enumerated_at: Mapped[Moment | None] = mapped_column(comment="when every image had its item")
    dispatched_at: Mapped[Moment | None] = mapped_column(comment="when the enumeration message was last sent")
    paused_at: Mapped[Moment | None] = mapped_column(comment="no chunk of it is claimed while this is set")
    cancel_requested_at: Mapped[Moment | None]
    deadline_at: Mapped[Moment | None] = mapped_column(comment="what is not done by then fails; null: there is none")
    max_failed_share: Mapped[float | None] = mapped_column(comment="with more failures it stops; null: it goes on")
    stopped_at: Mapped[Moment | None] = mapped_column(comment="when it stopped by itself; error_code says why")
    retry_cursor: Mapped[int | None] = mapped_column(comment="failed items after it are still to be opened again")
    finished_at: Mapped[Moment | None]
    error_code: Mapped[str | None]
    error_message: Mapped[str | None]
    pending_images: Mapped[int] = mapped_column(server_default="0")
    succeeded_images: Mapped[int] = mapped_column(server_default="0")
    failed_images: Mapped[int] = mapped_column(server_default="0")
    cancelled_images: Mapped[int] = mapped_column(server_default="0")
    label_errors: Mapped[int] = mapped_column(server_default="0")
    defective_images: Mapped[int] = mapped_column(server_default="0")
    defects: Mapped[int] = mapped_column(server_default="0", comment="of results, each counted once")
    scored_images: Mapped[int] = mapped_column(server_default="0", comment="images with a result and a label")
    tp: Mapped[int] = mapped_column(server_default="0", comment="pixels, summed over the scored images")
    fp: Mapped[int] = mapped_column(server_default="0")
    fn: Mapped[int] = mapped_column(server_default="0")
    tn: Mapped[int] = mapped_column(server_default="0")
    iou_defect_sum: Mapped[Decimal] = mapped_column(server_default="0", comment="over images; decimal: no drift")
    iou_background_sum: Mapped[Decimal] = mapped_column(server_default="0")
    dice_sum: Mapped[Decimal] = mapped_column(server_default="0")
    created_at: Mapped[CreatedAt]

    __table_args__ = (
        Index("ix_jobs_unfinished", "id", postgresql_where=text("state IN ('pending', 'running')")),
        Index("ix_jobs_created_at", "created_at"),
        # Each token has keys of its own, and so has everybody together who needs none.
        Index(
            "uq_jobs_token_id_idempotency_key",
            *("token_id", "idempotency_key"),
            unique=True,
            postgresql_nulls_not_distinct=True,
            postgresql_where=text("idempotency_key IS NOT NULL"),
        ),
        CheckConstraint("priority BETWEEN 0 AND 2", name="priority"),
        CheckConstraint("max_failed_share BETWEEN 0 AND 1", name="max_failed_share"),
    )


class Chunk(Base):
    """A slice of a job: the unit that a worker claims, holds by a lease and completes under its token."""

    __tablename__ = "chunks"

    id: Mapped[Id]
    job_id: Mapped[int] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), index=True)
    state: Mapped[ChunkState] = mapped_column(states(ChunkState), server_default=ChunkState.PENDING.value)
    image_count: Mapped[int] = mapped_column(Integer, server_default="0")
    attempts: Mapped[int] = mapped_column(server_default="0", comment="counted at claim, so a kill counts")
    lease_owner: Mapped[str | None]
    lease_token: Mapped[int] = mapped_column(server_default="0", comment="fencing token, raised by every claim")
    lease_expires_at: Mapped[Moment | None]
    next_run_at: Mapped[Moment | None] = mapped_column(comment="rests until then after a fault; null: at once")
    postponements: Mapped[int] = mapped_column(server_default="0", comment="given back because a server was away")
    suspect_sha256: Mapped[str | None] = mapped_column(
        String(64), comment="content of its one image, noted after a fault and before anything was done with it"
    )
    fault: Mapped[str | None] = mapped_column(comment="the error that the last claim broke off in; null: none known")
    finished_at: Mapped[Moment | None]
    created_at: Mapped[CreatedAt]

    __table_args__ = (
        # What a claim looks through: the chunks of one job, the lowest first.
        Index("ix_chunks_owed", "job_id", "id", postgresql_where=text("state IN ('pending', 'running')")),
        # What is being worked on, or was: a claim counts it, and the reconciler settles it.
        Index(
            "ix_chunks_begun",
            "job_id",
            "state",
            postgresql_where=text("state IN ('pending', 'running') AND attempts > 0"),
        ),
    )


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
    image_id: Mapped[int | None] = mapped_column(ForeignKey("images.id"))
    label_id: Mapped[int | None] = mapped_column(ForeignKey("labels.id"))
    result_id: Mapped[int | None] = mapped_column(ForeignKey("results.id"))
    verdict: Mapped[Verdict | None] = mapped_column(states(Verdict), comment="that of its result")
    error_code: Mapped[str | None]
    error_message: Mapped[str | None]
    label_error_code: Mapped[str | None] = mapped_column(comment="the label was unusable; the result stands")
    label_error_message: Mapped[str | None]

    __table_args__ = (
        UniqueConstraint("job_id", "name"),
        # One for each order in which pages of a job are read.
        Index("ix_job_items_job_id_id", "job_id", "id"),
        Index("ix_job_items_job_id_state_id", "job_id", "state", "id"),
        Index(
            "ix_job_items_job_id_verdict_result_id",
            "job_id",
            "verdict",
            "result_id",
            postgresql_where=text("result_id IS NOT NULL"),
        ),
        # Partial, so that enumeration does not pay for them.
        Index("ix_job_items_image_id", "image_id", postgresql_where=text("image_id IS NOT NULL")),
        Index("ix_job_items_result_id", "result_id", postgresql_where=text("result_id IS NOT NULL")),
        # What waits in the content store for a worker: uploads and members of archives, and nothing from elsewhere.
        Index(
            "ix_job_items_source_uri",
            "source_uri",
            postgresql_where=text("image_id IS NULL AND source_uri LIKE '%/objects/sha256/%'"),
        ),
        Index(
            "ix_job_items_label_uri",
            "label_uri",
            postgresql_where=text("label_id IS NULL AND label_uri LIKE '%/objects/sha256/%'"),
        ),
    )


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
    resize_policy: Mapped[str] = mapped_column(
        String(16), server_default="stretch", comment="stretch, letterbox or tile"
    )
    tile_count: Mapped[int] = mapped_column(Integer, server_default="1", comment="model inputs the image became")
    model_scale: Mapped[float | None] = mapped_column(comment="model pixels for one of the image's")
    deleted_at: Mapped[Moment | None] = mapped_column(comment="when retention gave mask and overlay up")
    created_at: Mapped[CreatedAt]

    __table_args__ = (
        UniqueConstraint("image_id", "model_version_id", "params_sha256"),
        Index("ix_results_created_at", "created_at"),
        Index("ix_results_verdict_id", "verdict", "id"),
        Index("ix_results_model_version_id_id", "model_version_id", "id"),
        # What the collector asks: whether any result still has a mask.
        Index("ix_results_mask_key", "mask_key", postgresql_where=text("deleted_at IS NULL")),
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
        Index("ix_defects_area_px_id", "area_px", "id"),
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

    __table_args__ = (UniqueConstraint("image_id", "sha256"), Index("ix_labels_sha256", "sha256"))


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
