"""Let lines of the audit log be deleted when they are older than a month, by a transaction that says so.

Revision: 0011
Follows: 0010

Only the function of the trigger is replaced. The previous release deletes no line, so it goes on meanwhile.
"""

from __future__ import annotations

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_MAY_BE_FORGOTTEN = """
            IF TG_OP = 'DELETE' AND OLD.created_at < now() - interval '30 days'
                AND current_setting('defectoscope.forget_audit_entries', true) = 'on'
            THEN
                RETURN OLD;
            END IF;"""


def upgrade() -> None:
    _replace(_MAY_BE_FORGOTTEN)


def downgrade() -> None:
    _replace("")


def _replace(first: str) -> None:
    op.execute(f"""
        CREATE OR REPLACE FUNCTION keep_audit_entries() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN{first}
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
