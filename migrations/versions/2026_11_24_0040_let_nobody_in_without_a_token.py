"""Add API tokens and the audit log, whose lines can be added and given an outcome once, and nothing else.

Revision: 0008
Follows: 0007

Both tables are new, so the previous release goes on while this one migrates.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "api_tokens",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column(
            "name",
            sa.String(),
            nullable=False,
            comment="of a person or a program; the ledger and the audit log name it",
        ),
        sa.Column(
            "scope",
            sa.Enum(
                "viewer",
                "operator",
                "trainer",
                "admin",
                name="accessscope",
                native_enum=False,
                create_constraint=True,
                length=16,
            ),
            nullable=False,
        ),
        sa.Column("sha256", sa.String(length=64), nullable=False, comment="of the secret"),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True, comment="to the minute"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_tokens")),
    )
    op.create_table(
        "audit_entries",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("token_id", sa.BigInteger(), nullable=True, comment="null where no token was needed"),
        sa.Column("actor", sa.String(), nullable=False, comment="name of the token"),
        sa.Column(
            "action", sa.String(), nullable=False, comment="method and route, such as POST /v1/jobs/{job_id}/cancel"
        ),
        sa.Column("subject", sa.String(), nullable=True, comment="what it is about, such as jobs/12"),
        sa.Column("request_id", sa.String(length=64), nullable=False),
        sa.Column("address", sa.String(), nullable=True, comment="where the request came from"),
        sa.Column("status", sa.SmallInteger(), nullable=True, comment="HTTP status; null: no answer was given"),
        sa.Column("error_code", sa.String(length=64), nullable=True),
        sa.ForeignKeyConstraint(["token_id"], ["api_tokens.id"], name=op.f("fk_audit_entries_token_id_api_tokens")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_entries")),
    )
    op.create_index(op.f("ix_audit_entries_token_id_id"), "audit_entries", ["token_id", "id"])
    # Against our own mistakes and those of a person at a prompt; the owner of the database can take the trigger away.
    op.execute("""
        CREATE FUNCTION keep_audit_entries() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF TG_OP = 'UPDATE' AND OLD.status IS NULL
                AND (NEW.id, NEW.created_at, NEW.actor, NEW.action, NEW.request_id)
                    = (OLD.id, OLD.created_at, OLD.actor, OLD.action, OLD.request_id)
                AND NEW.token_id IS NOT DISTINCT FROM OLD.token_id
                AND NEW.address IS NOT DISTINCT FROM OLD.address
            THEN
                RETURN NEW;
            END IF;
            RAISE EXCEPTION 'table % is only ever appended to', TG_TABLE_NAME;
        END $$
    """)
    op.execute("""
        CREATE TRIGGER keep_audit_entries BEFORE UPDATE OR DELETE ON audit_entries
        FOR EACH ROW EXECUTE FUNCTION keep_audit_entries()
    """)


def downgrade() -> None:
    op.drop_table("audit_entries")
    op.execute("DROP FUNCTION keep_audit_entries()")
    op.drop_table("api_tokens")
