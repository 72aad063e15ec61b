"""Tables of stored objects: what is being deleted, what is kept for somebody, and the walks over the bucket."""

from __future__ import annotations

from enum import StrEnum

from sqlalchemy import CheckConstraint, ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from defectoscope.database.base import Base, CreatedAt, Id, Moment, states


class CondemnedObject(Base):
    """An object that the collector deletes, or deleted: whoever points at its key must look whether it is there."""

    __tablename__ = "condemned_objects"

    key: Mapped[str] = mapped_column(primary_key=True)
    condemned_at: Mapped[CreatedAt]
    deleted_at: Mapped[Moment | None] = mapped_column(comment="null while the request to delete it may be under way")

    __table_args__ = (Index("ix_condemned_objects_condemned_at", "condemned_at"),)


class RetainedWhat(StrEnum):
    """What a rule of retention gives up: masks and overlays, or the original bytes of images."""

    MASKS = "masks"
    ORIGINALS = "originals"


class RetentionRule(Base):
    """What is given up when it is old enough. Rows stay; only what they point at goes."""

    __tablename__ = "retention_rules"

    id: Mapped[Id]
    what: Mapped[RetainedWhat] = mapped_column(states(RetainedWhat))
    older_than_days: Mapped[int] = mapped_column(comment="since it was made, and since the last job that used it")
    keep_defective: Mapped[bool] = mapped_column(comment="spare results with defects, and the images that have one")
    job_id: Mapped[int | None] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), comment="null: of every job")
    actor: Mapped[str]
    created_at: Mapped[CreatedAt]

    __table_args__ = (CheckConstraint("older_than_days > 0", name="days"),)


class Hold(Base):
    """A job or an image of which nothing is given up, whatever the rules say."""

    __tablename__ = "holds"

    id: Mapped[Id]
    job_id: Mapped[int | None] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), index=True)
    image_id: Mapped[int | None] = mapped_column(ForeignKey("images.id", ondelete="CASCADE"), index=True)
    reason: Mapped[str]
    actor: Mapped[str]
    created_at: Mapped[CreatedAt]

    __table_args__ = (CheckConstraint("num_nonnulls(job_id, image_id) = 1", name="subject"),)


class ObjectLease(Base):
    """A key that somebody was told to rely on before a row points at it, such as that of an announced upload."""

    __tablename__ = "object_leases"

    key: Mapped[str] = mapped_column(primary_key=True)
    expires_at: Mapped[Moment]


class ObjectCollection(Base):
    """One walk over the bucket that deletes what no row points at; owned through a lease, resumed at its cursor."""

    __tablename__ = "object_collections"

    id: Mapped[Id]
    cursor: Mapped[str] = mapped_column(server_default="", comment="key of the last object looked at")
    lease_owner: Mapped[str | None]
    lease_token: Mapped[int] = mapped_column(server_default="0")
    lease_expires_at: Mapped[Moment | None]
    examined_objects: Mapped[int] = mapped_column(server_default="0")
    examined_bytes: Mapped[int] = mapped_column(server_default="0")
    deleted_objects: Mapped[int] = mapped_column(server_default="0")
    deleted_bytes: Mapped[int] = mapped_column(server_default="0")
    aborted_uploads: Mapped[int] = mapped_column(server_default="0", comment="multipart uploads that nobody finished")
    started_at: Mapped[CreatedAt]
    finished_at: Mapped[Moment | None]

    __table_args__ = (
        # Of two that begin a walk at the same moment one fails.
        Index(
            "uq_object_collections_unfinished",
            text("(finished_at IS NULL)"),
            unique=True,
            postgresql_where=text("finished_at IS NULL"),
        ),
        CheckConstraint("deleted_objects <= examined_objects", name="counts"),
    )
