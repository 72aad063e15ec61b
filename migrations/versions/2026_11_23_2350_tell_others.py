"""Add webhooks: who wants to be told of events, and what is owed to whom.

Revision: 0004
Follows: 0003

Only new tables: the previous release goes on while this one migrates, and owes nothing to webhooks it does not know.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "webhooks",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("name", sa.String(), nullable=True, comment="for people"),
        sa.Column("url", sa.String(), nullable=False),
        sa.Column(
            "kinds",
            postgresql.ARRAY(sa.String(length=64)),
            nullable=False,
            comment="of events: model.promoted, model.* or *",
        ),
        sa.Column("secret", sa.String(), nullable=False, comment="signs deliveries; shown once, never logged"),
        sa.Column("disabled_at", _MOMENT, nullable=True, comment="nothing is sent and nothing becomes owed while set"),
        sa.Column(
            "failures", sa.Integer(), server_default="0", nullable=False, comment="attempts in a row that failed"
        ),
        sa.Column(
            "available_at",
            _MOMENT,
            server_default=sa.text("now()"),
            nullable=False,
            comment="no delivery of it is claimed before: one is in work, or it rests",
        ),
        sa.Column("created_at", _MOMENT, server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhooks")),
    )
    op.create_table(
        "webhook_deliveries",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("webhook_id", sa.BigInteger(), nullable=False),
        sa.Column("event_id", sa.BigInteger(), nullable=False),
        sa.Column(
            "state",
            sa.Enum(
                "pending",
                "delivered",
                "dead",
                name="deliverystate",
                native_enum=False,
                create_constraint=True,
                length=16,
            ),
            server_default="pending",
            nullable=False,
        ),
        sa.Column(
            "attempts", sa.Integer(), server_default="0", nullable=False, comment="counted when an attempt begins"
        ),
        sa.Column("next_attempt_at", _MOMENT, server_default=sa.text("now()"), nullable=False),
        sa.Column("lease_owner", sa.String(), nullable=True, comment="host and process that sends it, for people"),
        sa.Column(
            "lease_token",
            sa.BigInteger(),
            server_default="0",
            nullable=False,
            comment="fences off a sender whose lease ran out",
        ),
        sa.Column("lease_expires_at", _MOMENT, nullable=True),
        sa.Column("last_status", sa.SmallInteger(), nullable=True, comment="HTTP status of the last answer"),
        sa.Column(
            "last_error",
            sa.String(),
            nullable=True,
            comment="why the last attempt failed; never what was answered",
        ),
        sa.Column("finished_at", _MOMENT, nullable=True),
        sa.Column("created_at", _MOMENT, server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["webhook_id"], ["webhooks.id"], name=op.f("fk_webhook_deliveries_webhook_id_webhooks"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["event_id"], ["events.id"], name=op.f("fk_webhook_deliveries_event_id_events"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_deliveries")),
        sa.UniqueConstraint("event_id", "webhook_id", name=op.f("uq_webhook_deliveries_event_id_webhook_id")),
    )
    op.create_index("ix_webhook_deliveries_webhook_id_id", "webhook_deliveries", ["webhook_id", "id"])
    op.create_index(
        "ix_webhook_deliveries_open",
        "webhook_deliveries",
        ["webhook_id", "state", "next_attempt_at", "id"],
        postgresql_where=sa.text("state <> 'delivered'"),
    )
    op.create_index(
        "ix_webhook_deliveries_finished_at",
        "webhook_deliveries",
        ["finished_at"],
        postgresql_where=sa.text("finished_at IS NOT NULL"),
    )


def downgrade() -> None:
    op.drop_table("webhook_deliveries")
    op.drop_table("webhooks")
