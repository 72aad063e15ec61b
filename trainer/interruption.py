"""A request to stop, as a flag that the work asks about. It refuses to break into a transaction.

A signal handler that raised wherever the program happens to be could break a commit in two: done in the database,
failed here. So the handler only sets a flag; the work asks after each step, and stages that nothing can be asked in
(the export) are passed over to their end.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from defectoscope.errors import TrainingInterrupted


class Interruption:
    """Whether this process was told to stop."""

    def __init__(self) -> None:
        """Start as not told."""
        self._told = threading.Event()

    def tell(self) -> None:
        """Ask for a stop; safe in a signal handler and from any thread."""
        self._told.set()

    @property
    def is_told(self) -> bool:
        """Whether a stop was asked for."""
        return self._told.is_set()

    def check(self) -> None:
        """Go on, or not.

        Raises:
            TrainingInterrupted: a stop was asked for.
        """
        if self._told.is_set():
            raise TrainingInterrupted

    @contextmanager
    def by_signals(self) -> Iterator[None]:
        """Take SIGTERM and SIGINT as the request, until the block is left; for the main thread only."""
        wanted = (signal.SIGTERM, signal.SIGINT)
        before = [signal.signal(number, lambda *_: self.tell()) for number in wanted]
        try:
            yield
        finally:
            for number, handler in zip(wanted, before, strict=True):
                signal.signal(number, handler)

    def by_end_of(self, stream: BinaryIO) -> None:
        """Take the end of a stream as the request too: a killed parent can send no signal, but its pipe ends."""

        def watch() -> None:
            while stream.read(4096):
                pass
            self.tell()

        threading.Thread(target=watch, name="parent-watch", daemon=True).start()
