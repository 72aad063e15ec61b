"""Keeps work ours while it lasts, from threads of their own: the lease of a chunk, the word about an enumeration."""

from __future__ import annotations

from threading import Event, Thread
from types import TracebackType
from typing import Self

import structlog

from defectoscope.database import Database
from defectoscope.errors import DatabaseUnavailable
from defectoscope.inspection.chunks import ClaimedChunk, Lease, renew_lease
from defectoscope.inspection.enumeration import touch_enumeration

log = structlog.get_logger(__name__)

#: A cancellation is noticed within this time, seconds.
_LONGEST_INTERVAL_S = 2.0


class Heartbeat:
    """Renews a chunk's lease from a thread of its own, for as long as the `with` block lasts."""

    def __init__(self, *, database: Database, chunk: ClaimedChunk, lease_s: int) -> None:
        """Args: database: where the lease is; chunk: as claimed; lease_s: seconds each renewal lasts."""
        self._database = database
        self._chunk = chunk
        self._lease_s = lease_s
        self._ended = Event()
        self._state = Lease.HELD
        self._thread = Thread(target=self._renew, name=f"lease-{chunk.chunk_id}", daemon=True)

    @property
    def state(self) -> Lease:
        """What the last renewal found."""
        return self._state

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _renew(self) -> None:
        while not self._ended.wait(min(self._lease_s / 3, _LONGEST_INTERVAL_S)):
            try:
                self._state = renew_lease(database=self._database, chunk=self._chunk, lease_s=self._lease_s)
            except DatabaseUnavailable as exc:
                # The lease may still be ours when the database is back; completion will tell.
                log.warning("lease.not_renewed", chunk=self._chunk.chunk_id, reason=exc.message)
                continue
            if self._state is not Lease.HELD:
                log.warning("lease.ended", chunk=self._chunk.chunk_id, state=self._state.value)
                return


class EnumerationWord:
    """Says again and again that a job is being enumerated, for as long as the `with` block lasts."""

    def __init__(self, *, database: Database, job_id: int, interval_s: float) -> None:
        """Args: database: where it is said; job_id: the job; interval_s: seconds between two times."""
        self._database = database
        self._job_id = job_id
        self._interval_s = interval_s
        self._ended = Event()
        self._thread = Thread(target=self._repeat, name=f"enumeration-{job_id}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _repeat(self) -> None:
        while not self._ended.wait(self._interval_s):
            try:
                touch_enumeration(database=self._database, job_id=self._job_id)
            except DatabaseUnavailable as exc:
                log.warning("enumeration.not_told", job=self._job_id, reason=exc.message)
