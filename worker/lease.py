"""Keeps work ours while it lasts, from threads of their own: the leases of chunks, the word about an enumeration."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from time import monotonic

import structlog

from defectoscope.database import Database
from defectoscope.errors.installation import DatabaseUnavailable
from defectoscope.inspection.chunks import ClaimedChunk
from defectoscope.inspection.enumeration import touch_enumeration
from defectoscope.inspection.leases import Lease, look_after
from worker.repeating import Repeating

log = structlog.get_logger(__name__)

#: How often the process looks whether its chunks are still wanted, seconds: a cancellation ends the work within 2 s.
_LOOK_INTERVAL_S = 1.0


@dataclass(slots=True, eq=False)
class HeldChunk:
    """A chunk in work, and what the last look at its lease found."""

    chunk: ClaimedChunk
    state: Lease = Lease.HELD


class Leases(Repeating):
    """Looks after every chunk that this process holds: asks about all of them at once, renews them at thirds.

    The thread begins with the first chunk. While nothing is held, nothing is asked.
    """

    def __init__(self, *, database: Database, lease_s: int) -> None:
        """Args: database: where the leases are; lease_s: seconds each renewal lasts."""
        super().__init__(self._look, interval_s=min(lease_s / 3, _LOOK_INTERVAL_S), name="leases")
        self._database = database
        self._lease_s = lease_s
        self._held: list[HeldChunk] = []
        self._lock = Lock()
        self._has_begun = False
        self._renewed_at = monotonic()

    @contextmanager
    def holding(self, chunk: ClaimedChunk) -> Iterator[HeldChunk]:
        """Keep a chunk ours within the block, and know what became of it."""
        held = HeldChunk(chunk)
        with self._lock:
            self._held.append(held)
            if not self._has_begun:
                self._has_begun = True
                self.start()
        try:
            yield held
        finally:
            with self._lock:
                self._held.remove(held)

    def _look(self) -> bool:
        with self._lock:
            asked = [held for held in self._held if held.state is Lease.HELD]
        if not asked:
            return True
        # All at once: what was claimed meanwhile has a lease from its claim.
        is_due = monotonic() - self._renewed_at >= self._lease_s / 3
        try:
            states = look_after(
                database=self._database,
                chunks=[held.chunk for held in asked],
                renew_for_s=self._lease_s if is_due else None,
            )
        except DatabaseUnavailable as exc:
            # The leases may still be ours when the database is back; completion will tell.
            log.warning("leases.not_looked_after", chunks=len(asked), reason=exc.message)
            return True
        if is_due:
            self._renewed_at = monotonic()
        for held, state in zip(asked, states, strict=True):
            held.state = state
            if state is not Lease.HELD:
                log.warning("lease.ended", chunk=held.chunk.chunk_id, state=state.value)
        return True


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
