"""Add what deleting objects needs: walks, condemned keys, leases, rules, holds, and indexes to ask who points at a key.

Revision: 0009
Follows: 0008

Before you write: the previous release is still running while this one migrates. Add, fill, switch, and drop one
release later. Long locks stop everybody: create indexes concurrently on tables that are in use.

Workers of the release before do not ask whether what they point at is being deleted; a collector of this one may run
beside them, since it deletes only what is days old. The indexes are made plainly: they take seconds for a million rows.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "condemned_objects",
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("condemned_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column(
            "deleted_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="null while the request to delete it may be under way",
        ),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_condemned_objects")),
    )
    op.create_index("ix_condemned_objects_condemned_at", "condemned_objects", ["condemned_at"])
    op.create_table(
        "object_leases",
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_object_leases")),
    )
    op.create_table(
        "object_collections",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column(
            "cursor",
            sa.String(),
            server_default="",
            nullable=False,
            comment="key of the last object looked at",
        ),
        sa.Column("lease_owner", sa.String(), nullable=True),
        _count("lease_token"),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True), nullable=True),
        _count("examined_objects"),
        _count("examined_bytes"),
        _count("deleted_objects"),
        _count("deleted_bytes"),
        _count("aborted_uploads", comment="multipart uploads that nobody finished"),
        sa.Column("started_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("deleted_objects <= examined_objects", name=op.f("ck_object_collections_counts")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_object_collections")),
    )
    op.create_index(
        "uq_object_collections_unfinished",
        "object_collections",
        [sa.text("(finished_at IS NULL)")],
        unique=True,
        postgresql_where=sa.text("finished_at IS NULL"),
    )
    _add_rules_and_holds()
    op.add_column(
        "images",
        sa.Column(
            "deleted_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="when retention gave the original bytes up",
        ),
    )
    op.add_column(
        "results",
        sa.Column(
            "deleted_at", sa.DateTime(timezone=True), nullable=True, comment="when retention gave mask and overlay up"
        ),
    )
    op.create_index("ix_results_mask_key", "results", ["mask_key"], postgresql_where=sa.text("deleted_at IS NULL"))
    op.create_index("ix_labels_sha256", "labels", ["sha256"])
    op.create_index(
        "ix_job_items_source_uri",
        "job_items",
        ["source_uri"],
        postgresql_where=sa.text("image_id IS NULL AND source_uri LIKE '%/objects/sha256/%'"),
    )
    op.create_index(
        "ix_job_items_label_uri",
        "job_items",
        ["label_uri"],
        postgresql_where=sa.text("label_id IS NULL AND label_uri LIKE '%/objects/sha256/%'"),
    )


def _add_rules_and_holds() -> None:
    op.create_table(
        "retention_rules",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column(
            "what",
            sa.Enum("masks", "originals", name="retainedwhat", native_enum=False, create_constraint=True, length=16),
            nullable=False,
        ),
        sa.Column(
            "older_than_days",
            sa.BigInteger(),
            nullable=False,
            comment="since it was made, and since the last job that used it",
        ),
        sa.Column(
            "keep_defective",
            sa.Boolean(),
            nullable=False,
            comment="spare results with defects, and the images that have one",
        ),
        sa.Column("job_id", sa.BigInteger(), nullable=True, comment="null: of every job"),
        sa.Column("actor", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("older_than_days > 0", name=op.f("ck_retention_rules_days")),
        sa.ForeignKeyConstraint(
            ["job_id"], ["jobs.id"], name=op.f("fk_retention_rules_job_id_jobs"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_retention_rules")),
    )
    op.create_table(
        "holds",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("job_id", sa.BigInteger(), nullable=True),
        sa.Column("image_id", sa.BigInteger(), nullable=True),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("actor", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("num_nonnulls(job_id, image_id) = 1", name=op.f("ck_holds_subject")),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_holds_job_id_jobs"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["image_id"], ["images.id"], name=op.f("fk_holds_image_id_images"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_holds")),
    )
    op.create_index(op.f("ix_holds_job_id"), "holds", ["job_id"])
    op.create_index(op.f("ix_holds_image_id"), "holds", ["image_id"])


def downgrade() -> None:
    op.drop_index("ix_job_items_label_uri", table_name="job_items")
    op.drop_index("ix_job_items_source_uri", table_name="job_items")
    op.drop_index("ix_labels_sha256", table_name="labels")
    op.drop_index("ix_results_mask_key", table_name="results")
    op.drop_column("results", "deleted_at")
    op.drop_column("images", "deleted_at")
    op.drop_table("holds")
    op.drop_table("retention_rules")
    op.drop_table("object_collections")
    op.drop_table("object_leases")
    op.drop_table("condemned_objects")


def _count(name: str, *, comment: str | None = None) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), server_default="0", nullable=False, comment=comment)
