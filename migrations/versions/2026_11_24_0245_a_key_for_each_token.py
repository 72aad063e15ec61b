"""Remember whose each job is, and let an idempotency key be known to its token alone.

Revision: 0010
Follows: 0009

Jobs that were submitted with tokens get theirs from the audit log. Those from before have nobody: no token is given
them for its key. The previous release goes on while this one migrates, and writes jobs without a token; a key that it
takes in those moments is unknown to this release, so that its request, repeated, makes a second job. The index is made
plainly: there is one row for a whole batch of images.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "jobs",
        sa.Column(
            "token_id",
            sa.BigInteger(),
            nullable=True,
            comment="whose it is; null: submitted before there were tokens, or without one",
        ),
    )
    op.create_foreign_key(op.f("fk_jobs_token_id_api_tokens"), "jobs", "api_tokens", ["token_id"], ["id"])
    op.execute("""
        UPDATE jobs SET token_id = audit_entries.token_id FROM audit_entries
        WHERE audit_entries.action = 'POST /v1/jobs' AND audit_entries.status = 201
            AND audit_entries.subject = 'jobs/' || jobs.id
    """)
    op.create_index(
        "uq_jobs_token_id_idempotency_key",
        "jobs",
        ["token_id", "idempotency_key"],
        unique=True,
        postgresql_nulls_not_distinct=True,
        postgresql_where=sa.text("idempotency_key IS NOT NULL"),
    )
    op.drop_constraint(op.f("uq_jobs_idempotency_key"), "jobs", type_="unique")


def downgrade() -> None:
    # One key, one job, for everybody: the first one has it.
    op.execute("""
        UPDATE jobs SET idempotency_key = NULL WHERE EXISTS (
            SELECT FROM jobs AS earlier WHERE earlier.idempotency_key = jobs.idempotency_key AND earlier.id < jobs.id
        )
    """)
    op.create_unique_constraint(op.f("uq_jobs_idempotency_key"), "jobs", ["idempotency_key"])
    op.drop_index("uq_jobs_token_id_idempotency_key", table_name="jobs")
    op.drop_column("jobs", "token_id")
