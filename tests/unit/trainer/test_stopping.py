"""Being told to stop: by a signal, by the end of the parent's pipe, and the parent's own side of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from defectoscope.errors.training import TrainingInterrupted
from trainer.interruption import Interruption
from trainer.subprocesses import WorkProcesses

#: Says that it runs, then waits for the end of its input or for SIGTERM.
_CHILD = """
import pathlib, sys
pathlib.Path(sys.argv[1], sys.argv[3]).touch()
sys.stdin.read()
pathlib.Path(sys.argv[1], "heard").touch()
"""

#: Says that it runs, and that it was told to stop; does not stop.
_DEAF = """
import time
from trainer.interruption import Interruption
interruption = Interruption()
interruption.by_end_of(0)
with interruption.by_signals():
    print("ready", flush=True)
    while not interruption.is_told:
        time.sleep(0.01)
    print("told", flush=True)
    time.sleep(60)
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

    interruption.by_end_of(reading)
    os.close(writing)
    _wait_for(lambda: interruption.is_told)

    with pytest.raises(TrainingInterrupted):
        interruption.check()
    os.close(reading)


def test_a_process_that_watches_its_parents_pipe_ends_well_while_the_pipe_is_open():
    watching = subprocess.Popen(
        [sys.executable, "-c", "from trainer.interruption import Interruption; Interruption().by_end_of(0)"],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )

    with watching:
        # Not `communicate`, which would close the pipe first.
        status = watching.wait(20)

        assert status == 0
        assert watching.stderr.read() == b""


@pytest.fixture
def deaf():
    """A process in a stage that asks nothing: it hears requests and goes on."""
    process = subprocess.Popen([sys.executable, "-c", _DEAF], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with process:
        assert process.stdout.readline() == b"ready\n"
        yield process
        process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_second_signal_ends_a_process_in_a_stage_that_asks_nothing(deaf, number):
    deaf.send_signal(signal.SIGTERM)
    assert deaf.stdout.readline() == b"told\n"

    deaf.send_signal(number)

    assert deaf.wait(5) == -number


def test_the_end_of_a_parent_that_has_asked_ends_a_process_in_a_stage_that_asks_nothing(deaf):
    deaf.send_signal(signal.SIGTERM)
    assert deaf.stdout.readline() == b"told\n"

    deaf.stdin.close()

    assert deaf.wait(5) == -signal.SIGKILL


def test_a_process_is_waited_for_and_its_status_returned():
    processes = WorkProcesses((sys.executable, "-c", "import sys; sys.exit(int(sys.argv[2]))"))

    assert processes.run("run", 5) == 5


def test_a_worker_that_is_told_to_stop_stops_its_processes_and_starts_no_other(tmp_path):
    processes = WorkProcesses(_command(tmp_path))
    statuses = []
    thread = threading.Thread(target=lambda: statuses.append(processes.run("run", 7)))
    thread.start()
    _wait_for((tmp_path / "7").exists)

    processes.stop()
    thread.join(20)

    assert statuses == [-signal.SIGTERM]
    assert processes.run("run", 8) is None
    assert not (tmp_path / "8").exists()


def test_a_process_hears_when_its_parent_is_killed(tmp_path):
    grandparent = f"from trainer.subprocesses import WorkProcesses; WorkProcesses({_command(tmp_path)!r}).run('run', 9)"
    parent = os.posix_spawn(sys.executable, [sys.executable, "-c", grandparent], os.environ)
    _wait_for((tmp_path / "9").exists)

    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)

    _wait_for((tmp_path / "heard").exists)
