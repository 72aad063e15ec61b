"""Add what a million images need: totals on jobs, priorities and pauses, claims and pages by index.

Revision: 0003
Follows: 0002

Before you write: the previous release is still running while this one migrates. Add, fill, switch, and drop one
release later. Long locks stop everybody: create indexes concurrently on tables that are in use.

This one is the exception: stop the API and the workers of the release before. They do not keep the totals, and its
workers do not know a message without a chunk's id. Nobody waits for a lock then, so the indexes are made plainly.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_UNFINISHED = sa.text("state IN ('pending', 'running')")
_COUNTERS = (
    "pending_images",
    "succeeded_images",
    "failed_images",
    "cancelled_images",
    "label_errors",
    "defective_images",
)
_PIXELS = ("fp", "fn", "tn")
_SUMS = ("iou_background_sum", "dice_sum")


def upgrade() -> None:
    _add_columns()
    _fill()
    _exchange_indexes()


def _add_columns() -> None:
    op.add_column(
        "jobs",
        sa.Column("priority", sa.SmallInteger(), server_default="1", nullable=False, comment="0 low, 1 normal, 2 high"),
    )
    op.create_check_constraint(op.f("ck_jobs_priority"), "jobs", "priority BETWEEN 0 AND 2")
    op.add_column(
        "jobs",
        sa.Column(
            "paused_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="no chunk of it is claimed while this is set",
        ),
    )
    op.add_column("jobs", _count("defects", "of results, each counted once"))
    op.add_column("jobs", _count("scored_images", "images with a result and a label"))
    op.add_column("jobs", _count("tp", "pixels, summed over the scored images"))
    for name in (*_COUNTERS, *_PIXELS):
        op.add_column("jobs", _count(name))
    op.add_column("jobs", _sum("iou_defect_sum", "over images; decimal: no drift"))
    for name in _SUMS:
        op.add_column("jobs", _sum(name))
    op.add_column("chunks", sa.Column("image_count", sa.Integer(), server_default="0", nullable=False))
    op.alter_column(
        "chunks",
        "dispatched_at",
        existing_type=sa.DateTime(timezone=True),
        comment="not used since 0003; the next migration drops it",
        existing_comment="when its message was last sent",
    )
    op.add_column(
        "job_items",
        sa.Column(
            "verdict",
            sa.Enum("clean", "defective", name="verdict", native_enum=False, create_constraint=True, length=16),
            nullable=True,
            comment="that of its result",
        ),
    )
    op.add_column(
        "results",
        sa.Column(
            "resize_policy",
            sa.String(length=16),
            server_default="stretch",
            nullable=False,
            comment="stretch, letterbox or tile",
        ),
    )
    op.add_column(
        "results",
        sa.Column(
            "tile_count", sa.Integer(), server_default="1", nullable=False, comment="model inputs the image became"
        ),
    )
    op.add_column(
        "results",
        sa.Column("model_scale", sa.Float(), nullable=True, comment="model pixels for one of the image's"),
    )


def _count(name: str, comment: str | None = None) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), server_default="0", nullable=False, comment=comment)


def _sum(name: str, comment: str | None = None) -> sa.Column[object]:
    return sa.Column(name, sa.Numeric(), server_default="0", nullable=False, comment=comment)


def _fill() -> None:
    op.execute("""
        UPDATE job_items SET verdict = results.verdict FROM results WHERE results.id = job_items.result_id
    """)
    op.execute("""
        UPDATE chunks SET image_count = counted.images
        FROM (SELECT chunk_id, count(*) AS images FROM job_items GROUP BY chunk_id) AS counted
        WHERE counted.chunk_id = chunks.id
    """)
    op.execute("""
        UPDATE jobs SET
            pending_images = counted.pending, succeeded_images = counted.succeeded, failed_images = counted.failed,
            cancelled_images = counted.cancelled, label_errors = counted.label_errors,
            defective_images = counted.defective
        FROM (
            SELECT job_id,
                count(*) FILTER (WHERE state = 'pending') AS pending,
                count(*) FILTER (WHERE state = 'succeeded') AS succeeded,
                count(*) FILTER (WHERE state = 'failed') AS failed,
                count(*) FILTER (WHERE state = 'cancelled') AS cancelled,
                count(label_error_code) AS label_errors,
                count(*) FILTER (WHERE verdict = 'defective') AS defective
            FROM job_items GROUP BY job_id
        ) AS counted
        WHERE counted.job_id = jobs.id
    """)
    op.execute("""
        UPDATE jobs SET defects = found.defects
        FROM (
            SELECT job_id, sum(defect_count) AS defects
            FROM (SELECT DISTINCT job_id, result_id FROM job_items WHERE verdict = 'defective') AS named
            JOIN results ON results.id = named.result_id
            GROUP BY job_id
        ) AS found
        WHERE found.job_id = jobs.id
    """)
    # Decimal division gives the same digits wherever it is done, so these sums and those of the worker agree exactly.
    op.execute("""
        UPDATE jobs SET
            scored_images = scored.images, tp = scored.tp, fp = scored.fp, fn = scored.fn, tn = scored.tn,
            iou_defect_sum = scored.iou_defect, iou_background_sum = scored.iou_background, dice_sum = scored.dice
        FROM (
            SELECT job_id, count(*) AS images, sum(tp) AS tp, sum(fp) AS fp, sum(fn) AS fn, sum(tn) AS tn,
                sum(coalesce(tp::numeric / nullif(tp + fp + fn, 0), 1)) AS iou_defect,
                sum(coalesce(tn::numeric / nullif(tn + fp + fn, 0), 1)) AS iou_background,
                sum(coalesce(2 * tp::numeric / nullif(2 * tp + fp + fn, 0), 1)) AS dice
            FROM job_items JOIN qa_scores USING (result_id, label_id)
            GROUP BY job_id
        ) AS scored
        WHERE scored.job_id = jobs.id
    """)


def _exchange_indexes() -> None:
    op.drop_index("ix_chunks_owed", table_name="chunks")
    op.create_index("ix_chunks_owed", "chunks", ["job_id", "id"], postgresql_where=_UNFINISHED)
    op.create_index(
        "ix_chunks_begun",
        "chunks",
        ["job_id", "state"],
        postgresql_where=sa.text("state IN ('pending', 'running') AND attempts > 0"),
    )
    op.drop_index("ix_job_items_job_id_state", table_name="job_items")
    op.drop_index("ix_job_items_image_id", table_name="job_items")
    op.drop_index("ix_job_items_result_id", table_name="job_items")
    op.create_index("ix_job_items_job_id_id", "job_items", ["job_id", "id"])
    op.create_index("ix_job_items_job_id_state_id", "job_items", ["job_id", "state", "id"])
    op.create_index(
        "ix_job_items_job_id_verdict_result_id",
        "job_items",
        ["job_id", "verdict", "result_id"],
        postgresql_where=sa.text("result_id IS NOT NULL"),
    )
    op.create_index(
        "ix_job_items_image_id", "job_items", ["image_id"], postgresql_where=sa.text("image_id IS NOT NULL")
    )
    op.create_index(
        "ix_job_items_result_id", "job_items", ["result_id"], postgresql_where=sa.text("result_id IS NOT NULL")
    )
    op.create_index("ix_results_verdict_id", "results", ["verdict", "id"])
    op.create_index("ix_results_model_version_id_id", "results", ["model_version_id", "id"])
    op.drop_index("ix_defects_area_px", table_name="defects")
    op.create_index("ix_defects_area_px_id", "defects", ["area_px", "id"])


def downgrade() -> None:
    op.drop_index("ix_defects_area_px_id", table_name="defects")
    op.create_index("ix_defects_area_px", "defects", ["area_px"])
    op.drop_index("ix_results_model_version_id_id", table_name="results")
    op.drop_index("ix_results_verdict_id", table_name="results")
    for name in ("result_id", "image_id", "job_id_verdict_result_id", "job_id_state_id", "job_id_id"):
        op.drop_index(f"ix_job_items_{name}", table_name="job_items")
    op.create_index("ix_job_items_result_id", "job_items", ["result_id"])
    op.create_index("ix_job_items_image_id", "job_items", ["image_id"])
    op.create_index("ix_job_items_job_id_state", "job_items", ["job_id", "state"])
    op.drop_index("ix_chunks_begun", table_name="chunks")
    op.drop_index("ix_chunks_owed", table_name="chunks")
    op.create_index("ix_chunks_owed", "chunks", ["id"], postgresql_where=_UNFINISHED)
    for name in ("model_scale", "tile_count", "resize_policy"):
        op.drop_column("results", name)
    op.drop_column("job_items", "verdict")
    # The release before sends a message for every chunk that says it has none.
    op.execute("UPDATE chunks SET dispatched_at = NULL")
    op.alter_column(
        "chunks",
        "dispatched_at",
        existing_type=sa.DateTime(timezone=True),
        comment="when its message was last sent",
        existing_comment="not used since 0003; the next migration drops it",
    )
    op.drop_column("chunks", "image_count")
    for name in (*_SUMS, "iou_defect_sum", *_PIXELS, "tp", *_COUNTERS, "scored_images", "defects"):
        op.drop_column("jobs", name)
    op.drop_column("jobs", "paused_at")
    op.drop_constraint(op.f("ck_jobs_priority"), "jobs", type_="check")
    op.drop_column("jobs", "priority")
