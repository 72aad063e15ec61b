"""A thread that does one thing again and again, for as long as a `with` block lasts."""

from __future__ import annotations

from collections.abc import Callable
from threading import Event, Thread
from types import TracebackType
from typing import Self

from defectoscope.logs import carrying


class Repeating:
    """Calls a function every so often, from a thread of its own, until it is left or the function says that is enough.

    The first call comes after the first interval. Leaving waits for a call that is under way. Its lines in the log
    carry the ids that are bound where it is made.
    """

    def __init__(self, act: Callable[[], bool], *, interval_s: float, name: str) -> None:
        """Args: act: what is done, True to go on; interval_s: between two calls; name: of the thread."""
        self._act = act
        self._interval_s = interval_s
        self._ended = Event()
        self._thread = Thread(target=carrying(self._repeat), name=name, daemon=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def end(self) -> None:
        """Make no further call; does nothing when it never began."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()

    def _repeat(self) -> None:
        while not self._ended.wait(self._interval_s):
            if not self._act():
                return
