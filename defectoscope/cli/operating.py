"""What commands share that look after the servers themselves: a way to the database.

They are for whoever has the servers' addresses and passwords, as on the machine of `defectoscope up`. No token is asked
for: who can read the password of the database can do anything.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from defectoscope.database import Database

_DONE = 200


def log_to_standard_error() -> None:
    """Have what the parts log go where remarks go: standard output carries the answer and nothing else."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(file=sys.stderr))


@contextmanager
def opened_database() -> Iterator[Database]:
    """Open the database of the settings for the length of a block.

    Raises:
        SettingMissing: its URL is not set.
    """
    from defectoscope import connect
    from defectoscope.settings import load_settings

    log_to_standard_error()
    database = connect.open_database(load_settings())
    try:
        yield database
    finally:
        database.close()


def note_in_audit(session: Session, *, actor: str, action: str, subject: str, status: int = _DONE) -> None:
    """Write into the audit log what is done past the API, in the transaction that does it.

    Args:
        session: of the transaction.
        actor: account that does it; it has no token.
        action: the command.
        subject: what it is about, such as ``holds/5``.
        status: as the API would have answered.
    """
    from defectoscope.access.audit import begin_entry, end_entry
    from defectoscope.access.store import Principal
    from defectoscope.database import AccessScope

    whoever_may_write_there = Principal(None, actor, AccessScope.ADMIN)
    entry_id = begin_entry(
        session, principal=whoever_may_write_there, action=action, subject=subject, request_id="", address=None
    )
    end_entry(session, entry_id, status=status, error_code=None)
