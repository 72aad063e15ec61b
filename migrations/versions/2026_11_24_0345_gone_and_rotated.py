"""Remember why a webhook was disabled, and the secret that it had before.

Revision: 0012
Follows: 0011

Columns are only added, and nobody has to fill them, so the previous release goes on meanwhile; it signs with the new
secret alone until it is replaced.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "webhooks",
        sa.Column("disabled_reason", sa.String(), nullable=True, comment="null: somebody disabled it, or it is not"),
    )
    op.add_column(
        "webhooks",
        sa.Column("previous_secret", sa.String(), nullable=True, comment="signs beside the secret until it ends"),
    )
    op.add_column("webhooks", sa.Column("previous_secret_until", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    op.drop_column("webhooks", "previous_secret_until")
    op.drop_column("webhooks", "previous_secret")
    op.drop_column("webhooks", "disabled_reason")
