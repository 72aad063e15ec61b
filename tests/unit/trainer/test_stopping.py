"""Being told to stop: by a signal, by the end of the parent's pipe, and the parent's own side of it."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

import pytest

from defectoscope.errors import TrainingInterrupted
from trainer.interruption import Interruption
from trainer.subprocesses import RunProcesses

#: Says that it runs, then waits for the end of its input or for SIGTERM.
_CHILD = """
import pathlib, sys
pathlib.Path(sys.argv[1], sys.argv[2]).touch()
sys.stdin.read()
pathlib.Path(sys.argv[1], "heard").touch()
"""


def _command(directory):
    return (sys.executable, "-c", _CHILD, str(directory))


def _wait_for(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_nothing_is_interrupted_until_someone_asks():
    interruption = Interruption()

    interruption.check()

    assert not interruption.is_told


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_signal_is_heard_at_the_next_check_and_not_before(number):
    interruption = Interruption()
    before = signal.getsignal(number)

    with interruption.by_signals():
        os.kill(os.getpid(), number)
        with pytest.raises(TrainingInterrupted):
            interruption.check()

    assert signal.getsignal(number) is before


def test_the_end_of_the_parents_pipe_is_heard():
    interruption = Interruption()
    reading, writing = os.pipe()

    with os.fdopen(reading, "rb") as stream:
        interruption.by_end_of(stream)
        os.close(writing)
        _wait_for(lambda: interruption.is_told)

        with pytest.raises(TrainingInterrupted):
            interruption.check()


def test_a_process_is_waited_for_and_its_status_returned():
    processes = RunProcesses((sys.executable, "-c", "import sys; sys.exit(int(sys.argv[1]))"))

    assert processes.run(5) == 5


def test_a_worker_that_is_told_to_stop_stops_its_processes_and_starts_no_other(tmp_path):
    processes = RunProcesses(_command(tmp_path))
    statuses = []
    thread = threading.Thread(target=lambda: statuses.append(processes.run(7)))
    thread.start()
    _wait_for((tmp_path / "7").exists)

    processes.stop()
    thread.join(20)

    assert statuses == [-signal.SIGTERM]
    assert processes.run(8) is None
    assert not (tmp_path / "8").exists()


def test_a_process_hears_when_its_parent_is_killed(tmp_path):
    grandparent = f"from trainer.subprocesses import RunProcesses; RunProcesses({_command(tmp_path)!r}).run(9)"
    parent = os.posix_spawn(sys.executable, [sys.executable, "-c", grandparent], os.environ)
    _wait_for((tmp_path / "9").exists)

    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)

    _wait_for((tmp_path / "heard").exists)
