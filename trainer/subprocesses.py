"""Processes of training runs, as their parent sees them: started in groups of their own, told to stop with the worker.

A process for each run, because training must be killable without the worker, must return its memory, and may itself
start processes for reading and for further GPUs.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import structlog

log = structlog.get_logger(__name__)

#: Threads that wait for each other shall sleep, not spin: on a shared machine spinning takes the cores from inspection
#: and, with more threads than free cores, slows the training itself many times over.
_NEIGHBOURLY = {"OMP_WAIT_POLICY": "PASSIVE"}


class RunProcesses:
    """The training processes of one worker. Safe between threads."""

    def __init__(self, command: tuple[str, ...] = (sys.executable, "-m", "trainer", "run")) -> None:
        """Args: command: what is started; the run's id and an option follow."""
        self._command = command
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._stopping = False

    def run(self, run_id: int) -> int | None:
        """Start the process of a run and wait for its end.

        Returns:
            Its exit status, or None when the worker is stopping and nothing was started.
        """
        with self._lock:
            if self._stopping:
                return None
            # Nothing is ever written to the pipe. It ends when this process does, however that happens, and the child
            # takes its end as the request to stop: a killed worker leaves no training behind.
            process = subprocess.Popen(  # noqa: S603 -- our own interpreter and a number
                [*self._command, str(run_id), "--stop-with-stdin"],
                stdin=subprocess.PIPE,
                start_new_session=True,
                env={**_NEIGHBOURLY, **os.environ},
            )
            self._running.add(process)
        log.info("training_process.started", run_id=run_id, pid=process.pid)
        try:
            status = process.wait()
        finally:
            with self._lock:
                self._running.discard(process)
            if process.stdin:
                process.stdin.close()
        log.info("training_process.ended", run_id=run_id, pid=process.pid, status=status)
        return status

    def stop(self) -> None:
        """Send SIGTERM to every process; each ends its run as interrupted. No further one is started."""
        # Called in a signal handler of the main thread: the lock may be held by that very thread only if it is starting
        # a process, which task threads do. They hold it for milliseconds.
        with self._lock:
            self._stopping = True
            for process in self._running:
                process.terminate()
