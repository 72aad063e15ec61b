"""Remember images that took down their workers.

Revision: 0007
Follows: 0006

Before you write: the previous release is still running while this one migrates. Add, fill, switch, and drop one
release later. Long locks stop everybody: create indexes concurrently on tables that are in use.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "chunks",
        sa.Column(
            "suspect_sha256",
            sa.String(length=64),
            nullable=True,
            comment="content of its one image, noted after a fault and before anything was done with it",
        ),
    )
    op.create_table(
        "quarantined_images",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=True, comment="of the content; null: it was never read"),
        sa.Column("source_uri", sa.String(), nullable=False, comment="where it was"),
        sa.Column("source_etag", sa.String(), nullable=True),
        sa.Column("name", sa.String(), nullable=False, comment="what its job calls it"),
        sa.Column("job_id", sa.BigInteger(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["job_id"], ["jobs.id"], name=op.f("fk_quarantined_images_job_id_jobs"), ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_quarantined_images")),
        sa.UniqueConstraint("sha256", name=op.f("uq_quarantined_images_sha256")),
    )
    op.create_index(op.f("ix_quarantined_images_job_id"), "quarantined_images", ["job_id"])
    op.create_index(
        "ix_quarantined_images_unread",
        "quarantined_images",
        ["source_uri", "source_etag"],
        unique=True,
        postgresql_nulls_not_distinct=True,
        postgresql_where=sa.text("sha256 IS NULL"),
    )


def downgrade() -> None:
    op.drop_table("quarantined_images")
    op.drop_column("chunks", "suspect_sha256")
