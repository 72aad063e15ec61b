"""The way out of a process that cannot end by itself in time: work is given back, then it exits.

A failed GPU stays failed for its process, and a thread that hangs in a driver cannot be ended. Whoever started the
process starts it again. A process that is told to end has a time for it, and is out after that.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock, Thread
from time import monotonic, sleep

import structlog

from defectoscope.database import Database
from defectoscope.errors.installation import DatabaseUnavailable
from defectoscope.inspection.chunks import ClaimedChunk
from defectoscope.inspection.leases import Release, release_chunk
from worker.lane import Lane
from worker.repeating import Repeating

log = structlog.get_logger(__name__)

#: How long chunks in work may take to be given back by their own threads, seconds.
_GRACE_S = 5.0

#: EX_SOFTWARE of sysexits.h.
_STATUS = 70

_LOOK_INTERVAL_S = 1.0


class Departure:
    """Ends the process once, with every chunk given back."""

    def __init__(self, *, database: Database, before: Callable[[], None]) -> None:
        """Args: database: where chunks are given back; before: called first, has chunks in work end early."""
        self._database = database
        self._before = before
        self._held: dict[int, ClaimedChunk] = {}
        self._lock = Lock()
        self._begun = False

    @contextmanager
    def holding(self, chunk: ClaimedChunk) -> Iterator[None]:
        """Have a chunk given back if the process departs within the block."""
        with self._lock:
            self._held[chunk.chunk_id] = chunk
        try:
            yield
        finally:
            with self._lock:
                self._held.pop(chunk.chunk_id, None)

    def begin(self, reason: str, *, why: Release = Release.POSTPONED, grace_s: float = _GRACE_S) -> None:
        """Begin to leave, from a thread of its own; does nothing when it has begun.

        Args:
            reason: for the log.
            why: chunks are given back.
            grace_s: how long chunks in work may take to be given back by their own threads, seconds.
        """
        with self._lock:
            if self._begun:
                return
            self._begun = True
        log.critical("worker.departing", reason=reason, chunks=sorted(self._held))
        Thread(target=self._leave, args=(why, grace_s), name="departure", daemon=True).start()

    def begin_after(self, delay_s: float, reason: str) -> None:
        """Leave after a while, whatever is under way then; a process that has ended by itself is gone before."""

        def wait() -> None:
            sleep(delay_s)
            self.begin(reason, why=Release.STOPPED, grace_s=0)

        Thread(target=wait, name="departure-timer", daemon=True).start()

    def _leave(self, why: Release, grace_s: float) -> None:
        self._before()
        deadline = monotonic() + grace_s
        while self._held and monotonic() < deadline:
            sleep(0.1)
        for chunk in list(self._held.values()):
            try:
                release_chunk(database=self._database, chunk=chunk, why=why)
            except DatabaseUnavailable as exc:
                log.warning("chunk.not_released", chunk=chunk.chunk_id, reason=exc.message)
        os._exit(_STATUS)


class LaneWatch(Repeating):
    """Sees that no call of the model lasts for ever."""

    def __init__(self, *, lane: Lane, departure: Departure, stuck_after_s: float) -> None:
        """Args: lane: watched; departure: begun when it is stuck; stuck_after_s: the longest call, seconds."""
        super().__init__(self._look, interval_s=min(_LOOK_INTERVAL_S, stuck_after_s), name="lane-watch")
        self._lane = lane
        self._departure = departure
        self._stuck_after_s = stuck_after_s

    def _look(self) -> bool:
        if self._lane.busy_s > self._stuck_after_s:
            self._departure.begin(f"A call of the model has lasted {self._lane.busy_s:.0f} s.")
            return False
        return True
