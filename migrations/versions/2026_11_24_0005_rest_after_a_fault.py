"""Have chunks rest after a fault, and remember what a claim broke off in.

Revision: 0005
Follows: 0004

Before you write: the previous release is still running while this one migrates. Add, fill, switch, and drop one
release later. Long locks stop everybody: create indexes concurrently on tables that are in use.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "chunks",
        sa.Column(
            "next_run_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="rests until then after a fault; null: at once",
        ),
    )
    op.add_column(
        "chunks",
        sa.Column(
            "postponements",
            sa.BigInteger(),
            server_default="0",
            nullable=False,
            comment="given back because a server was away",
        ),
    )
    op.add_column(
        "chunks",
        sa.Column(
            "fault",
            sa.String(),
            nullable=True,
            comment="the error that the last claim broke off in; null: none known",
        ),
    )
    op.drop_column("chunks", "dispatched_at")


def downgrade() -> None:
    op.add_column(
        "chunks",
        sa.Column(
            "dispatched_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="not used since 0003; the next migration drops it",
        ),
    )
    for name in ("fault", "postponements", "next_run_at"):
        op.drop_column("chunks", name)
