"""A connection to PostgreSQL that does not wait for ever.

The server ends a statement that runs too long, but a server that has vanished without a word ends nothing: its clients
would wait for its answer until somebody restarts them. Whoever waits longer than any statement may run waits in vain.
"""

from __future__ import annotations

from typing import Any, ClassVar, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.pq import TransactionStatus

_T = TypeVar("_T")
_LOOK_S = 0.1


class ImpatientConnection(psycopg.Connection[Any]):
    """Closes itself when an answer takes longer than ``patience_s``; subclasses set it."""

    patience_s: ClassVar[float]

    def wait(self, gen: PQGen[_T], interval: float = _LOOK_S, timeout: float | None = None) -> _T:
        """Wait for an answer.

        Raises:
            psycopg.OperationalError: there was none in time; the connection is closed.
        """
        try:
            return super().wait(gen, interval, self.patience_s if timeout is None else timeout)
        except psycopg.OperationalError:
            if self.pgconn.transaction_status == TransactionStatus.ACTIVE:
                # The answer may still come, and would then be taken for that to the next question.
                self.pgconn.finish()
            raise


def impatient(patience_s: float) -> type[ImpatientConnection]:
    """Return a class of connections that wait so long, seconds."""
    return type("ImpatientConnection", (ImpatientConnection,), {"patience_s": patience_s})
