"""The table of images that no job may hand to a worker until people say so."""

from __future__ import annotations

from sqlalchemy import ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from defectoscope.database.base import Base, CreatedAt, Id, Sha256


class QuarantinedImage(Base):
    """An image that took down its workers until it was given up.

    Known by its content, or by its address where no worker lived to read it.
    """

    __tablename__ = "quarantined_images"

    id: Mapped[Id]
    sha256: Mapped[Sha256 | None] = mapped_column(unique=True, comment="of the content; null: it was never read")
    source_uri: Mapped[str] = mapped_column(comment="where it was")
    source_etag: Mapped[str | None]
    name: Mapped[str] = mapped_column(comment="what its job calls it")
    job_id: Mapped[int | None] = mapped_column(ForeignKey("jobs.id", ondelete="SET NULL"), index=True)
    created_at: Mapped[CreatedAt]

    __table_args__ = (
        Index(
            "ix_quarantined_images_unread",
            "source_uri",
            "source_etag",
            unique=True,
            postgresql_nulls_not_distinct=True,
            postgresql_where=text("sha256 IS NULL"),
        ),
    )
