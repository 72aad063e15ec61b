"""Keeps a claimed chunk ours while it is worked on, and hears when it no longer is or its job was cancelled."""

from __future__ import annotations

from threading import Event, Thread
from types import TracebackType
from typing import Self

import structlog

from defectoscope.database import Database
from defectoscope.errors import DatabaseUnavailable
from defectoscope.inspection.chunks import ClaimedChunk, Lease, renew_lease

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
