"""A limit on the memory of images in work, in bytes, shared by all chunks of the process."""

from __future__ import annotations

from threading import Condition

from worker import metrics


class ByteBudget:
    """Lends bytes, up to a limit. Who asks for more than there is waits until others have given back theirs."""

    def __init__(self, limit_bytes: int) -> None:
        """Args: limit_bytes: how much may be lent at once."""
        self._limit_bytes = limit_bytes
        self._lent_bytes = 0
        self._changed = Condition()

    def take(self, size_bytes: int) -> None:
        """Wait until so many bytes are free; more than the limit is lent while nothing else is."""
        with self._changed:
            self._changed.wait_for(lambda: not self._lent_bytes or self._lent_bytes + size_bytes <= self._limit_bytes)
            self._lent_bytes += size_bytes
            metrics.waiting_bytes.set(self._lent_bytes)

    def give_back(self, size_bytes: int) -> None:
        """Return what was taken."""
        with self._changed:
            self._lent_bytes -= size_bytes
            metrics.waiting_bytes.set(self._lent_bytes)
            self._changed.notify_all()
