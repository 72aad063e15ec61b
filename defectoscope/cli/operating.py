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
    from defectoscope.database import Database


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
