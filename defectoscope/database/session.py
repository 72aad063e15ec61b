"""Connections and transactions: one engine a process, one transaction a use case, effects after its commit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import create_engine, event, text
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session, sessionmaker

from defectoscope.crash_points import CrashPoint, crash_point
from defectoscope.database.impatience import ImpatientConnection, impatient
from defectoscope.errors.installation import DatabaseUnavailable

_AFTER_COMMIT = "after_commit"
#: How much longer than a statement may run its answer is waited for, seconds.
_ANSWER_LATE_S = 5.0
#: A process that is stopped in the middle of a transaction keeps its locks no longer than this, seconds.
_IDLE_IN_TRANSACTION_S = 60
#: PostgreSQL gives up a client that is silent on the network after this time, seconds.
_SILENT_S = 30


class Database:
    """PostgreSQL as the use cases see it: `with database.transaction() as session`."""

    def __init__(self, url: str, *, pool_size: int = 8, statement_timeout_s: int = 60) -> None:
        """Prepare the engine; nothing connects until the first transaction."""
        self._engine = create_engine(
            url,
            pool_size=pool_size,
            max_overflow=pool_size,
            pool_pre_ping=True,
            # An error of a statement would show its values in the log, the secret of a webhook among them.
            hide_parameters=True,
            connect_args={
                "connect_timeout": 5,
                "options": f"-c statement_timeout={statement_timeout_s * 1000} -c lock_timeout=20000 -c timezone=UTC"
                f" -c idle_in_transaction_session_timeout={_IDLE_IN_TRANSACTION_S * 1000}"
                f" -c tcp_user_timeout={_SILENT_S * 1000}"
                # To compile a statement, or to start workers for it, takes longer than any of ours runs.
                " -c jit=off -c max_parallel_workers_per_gather=0",
            },
        )
        connection_class = impatient(statement_timeout_s + _ANSWER_LATE_S)

        @event.listens_for(self._engine, "do_connect")
        def connect(_dialect: Any, _record: Any, arguments: list[Any], options: dict[str, Any]) -> ImpatientConnection:
            return connection_class.connect(*arguments, **options)

        self._sessions = sessionmaker(self._engine, expire_on_commit=False)

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """Commit on leaving, roll back on an exception, then run what `after_commit` was given.

        Raises:
            DatabaseUnavailable: PostgreSQL does not answer, ended the connection or the statement, or has no connection
                left for us; the same transaction may succeed later.
        """
        session = self._sessions()
        try:
            with session, session.begin():
                yield session
        except DBAPIError as exc:
            # Of what ended the connection PostgreSQL has more names than these two.
            if not (exc.connection_invalidated or isinstance(exc, (OperationalError, InterfaceError))):
                raise
            raise DatabaseUnavailable(f"The database does not answer: {exc.orig}".strip()) from exc
        except PoolTimeout as exc:
            raise DatabaseUnavailable("Every connection to the database is in use.") from exc
        effects = session.info.pop(_AFTER_COMMIT, [])
        if effects:
            crash_point(CrashPoint.EFFECTS_OWED)
        for effect in effects:
            effect()

    def ping(self) -> None:
        """Raises: DatabaseUnavailable."""
        with self.transaction() as session:
            session.execute(text("SELECT 1"))

    def close(self) -> None:
        """Close every pooled connection."""
        self._engine.dispose()


def after_commit(session: Session, effect: Callable[[], None]) -> None:
    """Run an effect once the transaction has committed, never when it rolls back.

    Messages leave this way: a worker can then never look for a row that is not there yet.
    """
    session.info.setdefault(_AFTER_COMMIT, []).append(effect)
