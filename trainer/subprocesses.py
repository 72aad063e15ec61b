"""Processes of the trainer's work, as their parent sees them: started in groups of their own, told to stop with it.

A process for each training run and each import, because both must be killable without the worker and must return their
memory; a training may itself start processes for reading and for further GPUs.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import structlog

from trainer.metrics import name_end, processes_running, processes_total

log = structlog.get_logger(__name__)

#: Threads that wait for each other shall sleep, not spin: on a shared machine spinning takes the cores from inspection
#: and, with more threads than free cores, slows the training itself many times over.
_NEIGHBOURLY = {"OMP_WAIT_POLICY": "PASSIVE"}


class WorkProcesses:
    """The processes of one worker. Safe between threads."""

    def __init__(self, command: tuple[str, ...] = (sys.executable, "-m", "trainer")) -> None:
        """Args: command: what is started; what to do, the id of the row and an option follow."""
        self._command = command
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._stopping = False

    def run(self, what: str, row_id: int) -> int | None:
        """Start a process and wait for its end.

        Args:
            what: a command of `python -m trainer`.
            row_id: what it is about.

        Returns:
            Its exit status, or None when the worker is stopping and nothing was started.
        """
        with self._lock:
            if self._stopping:
                return None
            # Nothing is ever written to the pipe. It ends when this process does, however that happens, and the child
            # takes its end as the request to stop: a killed worker leaves no training behind.
            process = subprocess.Popen(  # noqa: S603 -- our own interpreter and a number
                [*self._command, what, str(row_id), "--stop-with-stdin"],
                stdin=subprocess.PIPE,
                start_new_session=True,
                env={**_NEIGHBOURLY, **os.environ},
            )
            self._running.add(process)
        log.info("training_process.started", what=what, id=row_id, pid=process.pid)
        processes_running.labels(what).inc()
        try:
            status = process.wait()
        finally:
            processes_running.labels(what).dec()
            with self._lock:
                self._running.discard(process)
            if process.stdin:
                process.stdin.close()
        processes_total.labels(what, name_end(status)).inc()
        log.info("training_process.ended", what=what, id=row_id, pid=process.pid, status=status)
        return status

    def stop(self) -> None:
        """Send SIGTERM to every process; each gives its work back. No further one is started."""
        # Called in a signal handler of the main thread: the lock may be held by that very thread only if it is starting
        # a process, which task threads do. They hold it for milliseconds.
        with self._lock:
            self._stopping = True
            for process in self._running:
                process.terminate()
