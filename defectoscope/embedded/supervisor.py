"""Runs a set of processes in the foreground and ends all of them, in reverse order of their start.

It knows neither what the processes do nor which of them exist: `defectoscope up` and the embedded servers bring their
own. It does not become a daemon and keeps no state on disk but the logs.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

from defectoscope.embedded.keeper import Backoff, Keeper
from defectoscope.embedded.private_files import private_directory
from defectoscope.embedded.server import Server

_COLOURS = (36, 33, 32, 35, 34, 96, 93, 92, 95, 94)
_NAME_WIDTH = 10
_OWN_NAME = "defectoscope"
_KILL_RESERVE_S = 1.0


def _discard(_line: str) -> None:
    """Write nothing: the log files have it."""


class Supervisor:
    """Starts, watches, restarts and stops processes.

    Args:
        log_dir: Receives ``NAME.log`` of every process; created when absent. May be relative.
        write_line: Receives every line of every process, with the process's name in front. Calls never overlap.
        colour: Colour the names, for a terminal.
        backoff: When a crashed process is started again.

    As a context manager it stops everything on exit.
    """

    def __init__(
        self,
        log_dir: Path,
        *,
        write_line: Callable[[str], None] = _discard,
        colour: bool = False,
        backoff: Backoff | None = None,
    ) -> None:
        self._log_dir = log_dir.absolute()
        self._write_line: Callable[[str], None] = write_line
        self._colour = colour
        self._backoff = backoff or Backoff()
        self._groups: list[list[Keeper]] = []
        self._names: list[str] = []
        self._output = threading.Lock()
        self._stop_writing: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self, server: Server) -> None:
        """Start one process and wait until it is ready; from then on it is started again whenever it ends.

        Raises:
            ServerStartFailed: It ended or was not ready in time.
            DefectoscopeError: What its ``before_start`` raised.
        """
        self.start_all([server])

    def start_all(self, servers: Sequence[Server]) -> None:
        """Start several processes at the same time and wait until all are ready; they will be stopped together, too.

        Raises:
            ServerStartFailed: One of them ended or was not ready in time. The others of this call were stopped.
            DefectoscopeError: What a ``before_start`` raised; likewise.
        """
        private_directory(self._log_dir)
        group = [self._keeper(server) for server in servers]
        self._groups.append(group)
        started = False
        try:
            for keeper in group:
                keeper.begin()
            for keeper in group:
                keeper.wait_until_ready()
            started = True
        finally:
            if not started:
                _stop_group(group, grace_s=5.0)
                self._groups.remove(group)

    def guardian_ids(self) -> dict[str, int]:
        """Name to process id of the guardian of every process that runs now."""
        found = {keeper.server.name: keeper.guardian_id for group in self._groups for keeper in group}
        return {name: process_id for name, process_id in found.items() if process_id is not None}

    def run_until_stopped(self) -> None:
        """Block until SIGINT, SIGTERM, SIGHUP or `request_stop`, then stop everything. Main thread only."""
        # A pipe and not an Event: setting an Event in a signal handler may wait for a lock that the interrupted code
        # holds.
        reading, self._stop_writing = os.pipe()
        try:
            with self._signals_request_stop():
                select.select([reading], [], [])
                self.say("stopping")
                self.stop()
        finally:
            writing, self._stop_writing = self._stop_writing, None
            os.close(reading)
            os.close(writing)

    def request_stop(self) -> None:
        """End `run_until_stopped` if it runs; may be called from any thread and from a signal handler."""
        if self._stop_writing is not None:
            os.write(self._stop_writing, b"x")

    def stop(self, *, timeout_s: float = 10.0) -> None:
        """Stop everything, the processes started last first; what does not end in time is killed.

        Args:
            timeout_s: The time for all of them together. Each group gets an equal part of what is left, so that a
                process that hangs cannot take the time of the servers below it.
        """
        deadline = time.monotonic() + timeout_s - _KILL_RESERVE_S
        while self._groups:
            left_s = max(deadline - time.monotonic(), 0.0)
            _stop_group(self._groups[-1], grace_s=left_s / len(self._groups))
            self._groups.pop()

    def say(self, sentence: str) -> None:
        """Write a line of our own among those of the processes."""
        self._write(_OWN_NAME, sentence)

    def _keeper(self, server: Server) -> Keeper:
        if server.name not in self._names:
            self._names.append(server.name)

        def write_line(line: str) -> None:
            # The log file keeps blank lines; among the lines of seven processes they only part what belongs together.
            if line.strip():
                self._write(server.name, line)

        log_file = self._log_dir / f"{server.name}.log"
        return Keeper(server, log_file=log_file, write_line=write_line, say=self.say, backoff=self._backoff)

    def _write(self, name: str, line: str) -> None:
        prefix = f"{name:<{_NAME_WIDTH}} |"
        if self._colour:
            colour = _COLOURS[self._names.index(name) % len(_COLOURS)] if name in self._names else 1
            prefix = f"\x1b[{colour}m{prefix}\x1b[0m"
        with self._output:
            try:
                self._write_line(f"{prefix} {line}")
            except OSError:
                # Nobody reads us any more (the pipe behind us was closed). The processes matter more than their echo.
                self._write_line = _discard

    @contextlib.contextmanager
    def _signals_request_stop(self) -> Iterator[None]:
        def handle(_number: int, _frame: FrameType | None) -> None:
            self.request_stop()

        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = {number: signal.signal(number, handle) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _stop_group(group: Sequence[Keeper], *, grace_s: float) -> None:
    """Stop processes at the same time and wait until they are gone."""
    for keeper in group:
        keeper.ask_to_stop(grace_s=grace_s)
    for keeper in group:
        keeper.join(timeout_s=grace_s + 5.0)
