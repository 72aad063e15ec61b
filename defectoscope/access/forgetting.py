"""How long the audit log is kept: old lines go, oldest first, and with them ended tokens that nothing names any more.

The trigger that keeps lines as they are lets go only of those that are older than a month, and only for a transaction
that says what it is for.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import structlog
from sqlalchemy import text

from defectoscope.database import Database

#: Rows deleted in one transaction.
_AT_ONCE = 1000

_SAY_WHAT_FOR = text("SET LOCAL defectoscope.forget_audit_entries = 'on'")
# Lines are numbered as they are written, so that the oldest are found without a look at all others.
_FORGET_ENTRIES = text("""
    DELETE FROM audit_entries
    WHERE id IN (SELECT id FROM audit_entries ORDER BY id LIMIT :limit)
        AND created_at < now() - make_interval(days => :days)
""")
_FORGET_TOKENS = text("""
    DELETE FROM api_tokens
    WHERE least(revoked_at, expires_at) < now() - make_interval(days => :days)
        AND NOT EXISTS (SELECT FROM audit_entries WHERE audit_entries.token_id = api_tokens.id)
        AND NOT EXISTS (SELECT FROM jobs WHERE jobs.token_id = api_tokens.id)
""")

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Forgotten:
    """How many lines and tokens went."""

    entries: int
    tokens: int


def forget_old(database: Database, *, days: int, stop_after_s: float = float("inf")) -> Forgotten:
    """Delete lines of the audit log that are older than so many days, and tokens that ended as long ago.

    A token that a line or a job names stays, whenever it ended.

    Args:
        database: of the rows.
        days: at least 30; younger lines are refused by the database itself.
        stop_after_s: no further transaction begins after this; the next call goes on.
    """
    began_s = time.monotonic()
    entries = tokens = 0
    is_done = False
    while not is_done and time.monotonic() - began_s < stop_after_s:
        with database.transaction() as session:
            session.execute(_SAY_WHAT_FOR)
            deleted = session.connection().execute(_FORGET_ENTRIES, {"limit": _AT_ONCE, "days": days}).rowcount
        entries += deleted
        is_done = deleted < _AT_ONCE
    if is_done:
        with database.transaction() as session:
            tokens = session.connection().execute(_FORGET_TOKENS, {"days": days}).rowcount
    if entries or tokens:
        log.info("audit.forgotten", entries=entries, tokens=tokens, days=days)
    return Forgotten(entries=entries, tokens=tokens)
