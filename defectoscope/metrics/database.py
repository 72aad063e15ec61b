"""Figures that only the database knows, asked for when Prometheus asks, kept for a few seconds."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from threading import Lock

import structlog
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.orm import Session

from defectoscope.database import Database
from defectoscope.errors.installation import DatabaseUnavailable
from defectoscope.metrics.families import Family
from defectoscope.settings import Settings, required

log = structlog.get_logger(__name__)

#: A figure that takes longer is not worth its cost.
STATEMENT_TIMEOUT_S = 2

#: A figure of a family: values of the labels, and the number.
Reading = tuple[Family, tuple[str, ...], float]

DATABASE_UP = Family(
    name="defectoscope_database_up", meaning="1 when the database answered this process, 0 when it did not."
)


class DatabaseFigures(Collector):
    """Reads some families from the database. While it does not answer they are missing, and an up-gauge says why.

    However many ask, the database is asked once in ``keep_s`` seconds; an answer that did not come is kept as long.
    """

    def __init__(
        self,
        database: Database,
        *,
        families: Sequence[Family],
        read: Callable[[Session], Iterable[Reading]],
        keep_s: float = 5.0,
    ) -> None:
        """Prepare; nothing is asked yet.

        Args:
            database: of this collector alone, with a short statement timeout: a pool that the work uses up would make
                the figures disappear when they are wanted most, and a slow figure must not hold up the work.
            families: everything that ``read`` may return.
            read: returns the figures, in one transaction.
            keep_s: how long an answer is given again.
        """
        self._database = database
        self._families = tuple(families)
        self._read = read
        self._keep_s = keep_s
        self._lock = Lock()
        self._known: list[Metric] = []
        self._known_until_s = float("-inf")
        self._is_up = True

    def describe(self) -> Iterable[Metric]:
        """Return every family without figures; the database is not asked."""
        return [family.metric() for family in (DATABASE_UP, *self._families)]

    def collect(self) -> Iterable[Metric]:
        """Return the figures."""
        with self._lock:
            if time.monotonic() >= self._known_until_s:
                self._known = self._ask()
                self._known_until_s = time.monotonic() + self._keep_s
            return self._known

    def close(self) -> None:
        """Close the connection."""
        self._database.close()

    def _ask(self) -> list[Metric]:
        series: dict[str, list[tuple[tuple[str, ...], float]]] = defaultdict(list)
        try:
            with self._database.transaction() as session:
                for family, labels, figure in self._read(session):
                    series[family.name].append((labels, figure))
        # A database of another version of the schema cannot be asked either.
        except (DatabaseUnavailable, ProgrammingError) as exc:
            if self._is_up:
                log.warning("metrics.database_not_asked", reason=str(exc))
            self._is_up = False
            return [DATABASE_UP.metric([((), 0.0)])]
        self._is_up = True
        return [
            DATABASE_UP.metric([((), 1.0)]),
            *(family.metric(series[family.name]) for family in self._families),
        ]


def open_figures(
    settings: Settings, *, families: Sequence[Family], read: Callable[[Session], Iterable[Reading]]
) -> DatabaseFigures:
    """Return a collector with a connection of its own; nothing connects yet.

    Args:
        settings: where the database is.
        families: everything that ``read`` may return.
        read: returns the figures, in one transaction.

    Raises:
        SettingMissing: the database's URL is not set.
    """
    url = required(settings.database.url, "database.url").get_secret_value()
    database = Database(url, pool_size=1, statement_timeout_s=STATEMENT_TIMEOUT_S)
    return DatabaseFigures(database, families=families, read=read)
