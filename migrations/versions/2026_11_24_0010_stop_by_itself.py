"""Give jobs a deadline and a failure budget, and have a retry go on where it was.

Revision: 0006
Follows: 0005

Before you write: the previous release is still running while this one migrates. Add, fill, switch, and drop one
release later. Long locks stop everybody: create indexes concurrently on tables that are in use.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    moment = sa.DateTime(timezone=True)
    for column in (
        sa.Column("deadline_at", moment, comment="what is not done by then fails; null: there is none"),
        sa.Column("max_failed_share", sa.Float(), comment="with more failures it stops; null: it goes on"),
        sa.Column("stopped_at", moment, comment="when it stopped by itself; error_code says why"),
        sa.Column("retry_cursor", sa.BigInteger(), comment="failed items after it are still to be opened again"),
    ):
        op.add_column("jobs", column)
    op.create_check_constraint(op.f("ck_jobs_max_failed_share"), "jobs", "max_failed_share BETWEEN 0 AND 1")


def downgrade() -> None:
    op.drop_constraint(op.f("ck_jobs_max_failed_share"), "jobs", type_="check")
    for name in ("retry_cursor", "stopped_at", "max_failed_share", "deadline_at"):
        op.drop_column("jobs", name)
