"""A request to stop, as a flag that the work asks about. It refuses to break into a transaction.

A signal handler that raised wherever the program happens to be could break a commit in two: done in the database,
failed here. So the first request only sets a flag; the work asks after each step, and stages that nothing can be asked
in (the export) are passed over to their end. A second request ends the process where it stands, as a kill would: no
exception that a library could swallow, and nothing that the database does not take back by itself.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from defectoscope.errors.training import TrainingInterrupted


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
        """Take SIGTERM and SIGINT as the request, until the block is left; for the main thread only.

        The second of them ends the process.
        """
        wanted = (signal.SIGTERM, signal.SIGINT)
        before = [signal.signal(number, self._hear) for number in wanted]
        try:
            yield
        finally:
            for number, handler in zip(wanted, before, strict=True):
                signal.signal(number, handler)

    def by_end_of(self, descriptor: int) -> None:
        """Take the end of a pipe as a request too: a killed parent can send no signal, but its pipe ends.

        A parent that asked and was then killed had waited for as long as it could: its end is the second request.
        """

        def watch() -> None:
            # Not through a buffered stream: its lock would be held for ever, and Python aborts when it cannot take the
            # lock of standard input at its end.
            while os.read(descriptor, 4096):
                pass
            if self.is_told:
                os.kill(os.getpid(), signal.SIGKILL)
            self.tell()

        threading.Thread(target=watch, name="parent-watch", daemon=True).start()

    def _hear(self, number: int, _: FrameType | None) -> None:
        if self.is_told:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self.tell()
