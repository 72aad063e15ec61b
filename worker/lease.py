"""Keeps work ours while it lasts, from threads of their own: the lease of a chunk, the word about an enumeration."""

from __future__ import annotations

import structlog

from defectoscope.database import Database
from defectoscope.errors import DatabaseUnavailable
from defectoscope.inspection.chunks import ClaimedChunk, Lease, renew_lease
from defectoscope.inspection.enumeration import touch_enumeration
from worker.repeating import Repeating

log = structlog.get_logger(__name__)

#: A cancellation is noticed within this time, seconds.
_LONGEST_INTERVAL_S = 2.0


class Heartbeat(Repeating):
    """Renews a chunk's lease for as long as the `with` block lasts."""

    def __init__(self, *, database: Database, chunk: ClaimedChunk, lease_s: int) -> None:
        """Args: database: where the lease is; chunk: as claimed; lease_s: seconds each renewal lasts."""
        super().__init__(self._renew, interval_s=min(lease_s / 3, _LONGEST_INTERVAL_S), name=f"lease-{chunk.chunk_id}")
        self._database = database
        self._chunk = chunk
        self._lease_s = lease_s
        self._state = Lease.HELD

    @property
    def state(self) -> Lease:
        """What the last renewal found."""
        return self._state

    def _renew(self) -> bool:
        try:
            self._state = renew_lease(database=self._database, chunk=self._chunk, lease_s=self._lease_s)
        except DatabaseUnavailable as exc:
            # The lease may still be ours when the database is back; completion will tell.
            log.warning("lease.not_renewed", chunk=self._chunk.chunk_id, reason=exc.message)
            return True
        if self._state is not Lease.HELD:
            log.warning("lease.ended", chunk=self._chunk.chunk_id, state=self._state.value)
        return self._state is Lease.HELD


class EnumerationWord(Repeating):
    """Says again and again that a job is being enumerated, for as long as the `with` block lasts."""

    def __init__(self, *, database: Database, job_id: int, interval_s: float) -> None:
        """Args: database: where it is said; job_id: the job; interval_s: seconds between two times."""
        super().__init__(self._tell, interval_s=interval_s, name=f"enumeration-{job_id}")
        self._database = database
        self._job_id = job_id

    def _tell(self) -> bool:
        try:
            touch_enumeration(database=self._database, job_id=self._job_id)
        except DatabaseUnavailable as exc:
            log.warning("enumeration.not_told", job=self._job_id, reason=exc.message)
        return True
