"""Keeps one process running: starts it, copies its lines, and starts it again when it ends unasked.

One thread for each process does all of this, so there is nothing to synchronise between starting, reading and
waiting. It decides nothing about other processes; their order is the supervisor's matter.
"""

from __future__ import annotations

import collections
import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from defectoscope.embedded import guardian
from defectoscope.embedded.server import Server
from defectoscope.errors import DefectoscopeError
from defectoscope.errors.installation import ServerStartFailed

_LINE_LIMIT_BYTES = 65536
_LOG_LIMIT_BYTES = 10_000_000
_TAIL_LINES = 15
_PROBE_INTERVAL_S = 0.05
_SIGNAL_STATUS = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """How long to wait before a crashed process is started again: doubling, until it has kept well for a while."""

    first_s: float = 1.0
    longest_s: float = 30.0
    healthy_after_s: float = 60.0


class Keeper:
    """Keeps one process running.

    Args:
        server: What to run.
        log_file: Receives everything the process prints; moved to ``NAME.log.1`` beyond 10 MB, at a start.
        write_line: Receives every line the process prints.
        say: Receives a sentence whenever the process ended unasked.
        backoff: When to start it again.
    """

    def __init__(
        self,
        server: Server,
        *,
        log_file: Path,
        write_line: Callable[[str], None],
        say: Callable[[str], None],
        backoff: Backoff,
    ) -> None:
        self.server = server
        self._log_file = log_file
        self._write_line = write_line
        self._say = say
        self._backoff = backoff
        self._stopping = threading.Event()
        self._started = threading.Event()
        self._ready = False
        self._failure: DefectoscopeError | None = None
        self._tail: collections.deque[str] = collections.deque(maxlen=_TAIL_LINES)
        self._lock = threading.Lock()
        self._lifeline: int | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._run, name=f"keeper of {server.name}", daemon=True)

    @property
    def guardian_id(self) -> int | None:
        """The process id of the guardian, whose child the process is; None while nothing runs."""
        with self._lock:
            return self._process.pid if self._process is not None else None

    def begin(self) -> None:
        """Start the process and return at once."""
        self._thread.start()

    def wait_until_ready(self) -> None:
        """Return as soon as the process does its work.

        Raises:
            ServerStartFailed: It ended first, or was not ready in time. It is not started again.
            DefectoscopeError: What ``before_start`` raised.
        """
        deadline = time.monotonic() + self.server.ready_timeout_s
        while True:
            if not self._thread.is_alive():
                raise self._failure or self._start_failed("could not be started")
            if self._started.is_set() and (self.server.is_ready is None or self.server.is_ready()):
                self._ready = True
                return
            if time.monotonic() >= deadline:
                self.ask_to_stop(grace_s=1.0)
                self.join(timeout_s=5.0)
                raise self._start_failed(f"was not ready after {self.server.ready_timeout_s:g} s")
            time.sleep(_PROBE_INTERVAL_S)

    def ask_to_stop(self, *, grace_s: float) -> None:
        """Ask the process to end within ``grace_s`` seconds, after which it is killed; returns at once."""
        grace_s = min(grace_s, self.server.stop_timeout_s)
        self._stopping.set()
        with self._lock:
            if self._lifeline is not None:
                # The guardian may have ended this very moment, and then nobody reads.
                with contextlib.suppress(BrokenPipeError):
                    os.write(self._lifeline, f"{grace_s:.3f}\n".encode())

    def join(self, *, timeout_s: float) -> None:
        """Wait until the process and all its children are gone; kill the guardian itself when time is up."""
        if self._thread.ident is None:
            return
        self._thread.join(timeout_s)
        with self._lock:
            if self._process is not None:
                self._process.kill()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        delay_s = self._backoff.first_s
        while not self._stopping.is_set():
            started_at_s = time.monotonic()
            failure: DefectoscopeError
            try:
                outcome = _describe(self._run_once())
                failure = self._start_failed(outcome)
            except DefectoscopeError as exc:
                outcome, failure = f"could not be started: {exc}", exc
            except OSError as exc:
                outcome = f"could not be started: {exc}"
                failure = self._start_failed(outcome)
            if self._stopping.is_set():
                return
            if not self._ready and self.server.is_ready is not None:
                self._failure = failure
                return
            if time.monotonic() - started_at_s >= self._backoff.healthy_after_s:
                delay_s = self._backoff.first_s
            self._say(f"{self.server.name} {outcome}; starting it again in {delay_s:g} s")
            self._stopping.wait(delay_s)
            delay_s = min(2 * delay_s, self._backoff.longest_s)

    def _run_once(self) -> int:
        """Start the process, copy its lines until it ends, return its exit status."""
        if self.server.before_start is not None:
            self.server.before_start()
        with self._lock:
            if self._stopping.is_set():
                return 0
            reading, writing = os.pipe()
            try:
                process = self._spawn(reading)
            except OSError:
                os.close(writing)
                raise
            finally:
                os.close(reading)
            self._lifeline, self._process = writing, process
        self._started.set()
        try:
            with process:
                assert process.stdout is not None  # noqa: S101 - tells the type checker what PIPE means
                self._copy_lines(process.stdout)
            return process.returncode
        finally:
            with self._lock:
                os.close(writing)
                self._lifeline, self._process = None, None

    def _spawn(self, lifeline: int) -> subprocess.Popen[bytes]:
        server, account = self.server, self.server.account
        held = () if server.held_fd is None else (server.held_fd,)
        # No preexec_fn: it runs Python between fork and exec and may hang when other threads hold locks. The guardian
        # is a fresh, single-threaded interpreter and can change user, session and signals safely.
        command = [sys.executable, "-I", "-S", guardian.__file__, str(lifeline), str(int(server.stop_signal))]
        command += [str(account.user_id), str(account.group_id)] if account is not None else ["-1", "-1"]
        return subprocess.Popen(  # noqa: S603 - running what we were given is the purpose of this file
            [*command, *server.argv],
            cwd=server.cwd,
            env=dict(server.env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=(lifeline, *held),
            umask=-1 if server.umask is None else server.umask,
        )

    def _copy_lines(self, output: IO[bytes]) -> None:
        with contextlib.suppress(FileNotFoundError):
            if self._log_file.stat().st_size > _LOG_LIMIT_BYTES:
                self._log_file.replace(self._log_file.with_name(f"{self._log_file.name}.1"))
        with self._log_file.open("ab", buffering=0) as log:
            while line := output.readline(_LINE_LIMIT_BYTES):
                # A full disk must not stop us from reading: the process would block on its own output.
                with contextlib.suppress(OSError):
                    log.write(line if line.endswith(b"\n") else line + b"\n")
                text = line.decode("utf-8", errors="replace").rstrip("\r\n")
                self._tail.append(text)
                self._write_line(text)

    def _start_failed(self, outcome: str) -> ServerStartFailed:
        # The copy is taken in one step; the thread may be appending.
        tail = list(self._tail)
        last_lines = "\n".join(tail) or "(it printed nothing)"
        return ServerStartFailed(
            f"{self.server.name} {outcome}. The last lines of {self._log_file}:\n{last_lines}",
            server=self.server.name,
            log_file=str(self._log_file),
            last_lines=tail,
        )


def _describe(status: int) -> str:
    """Say how a process ended, given what its guardian returned."""
    if status < 0:
        return f"lost its guardian (signal {-status})"
    if status > _SIGNAL_STATUS:
        return f"was ended by signal {status - _SIGNAL_STATUS}"
    return f"ended with status {status}"
