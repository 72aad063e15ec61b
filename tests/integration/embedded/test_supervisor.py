"""The supervisor with small processes of its own making: restarting, stopping, and leaving nothing behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from defectoscope.embedded.keeper import Backoff
from defectoscope.embedded.server import Server, plain_environment
from defectoscope.embedded.supervisor import Supervisor
from defectoscope.errors.installation import ServerStartFailed


@pytest.fixture
def marker():
    """A word that stands in the command line of every process of a test."""
    return f"marker-{uuid.uuid4().hex}"


@pytest.fixture
def ours(processes_with, marker):
    """List the live processes of a test, guardians included."""
    return lambda: processes_with(marker)


@pytest.fixture
def python(tmp_path, marker):
    """Make a server from a line of Python, marked."""

    def make(program, *, name="child", **more):
        argv = (sys.executable, "-c", program, marker)
        return Server(name=name, argv=argv, env=plain_environment(tmp_path), cwd=tmp_path, **more)

    return make


@pytest.fixture
def lines():
    return []


@pytest.fixture
def supervisor(tmp_path, lines):
    backoff = Backoff(first_s=0.1, longest_s=0.3, healthy_after_s=2.0)
    with Supervisor(tmp_path / "logs", write_line=lines.append, backoff=backoff) as made:
        yield made


def test_a_crashed_process_is_started_again_later_and_later_and_each_time_it_is_said(
    supervisor, python, lines, eventually
):
    supervisor.start(python("raise SystemExit(3)"))

    seen = eventually(lambda: len(lines) >= 4)
    supervisor.stop()

    assert seen
    assert lines[:4] == [
        f"defectoscope | child ended with status 3; starting it again in {delay} s"
        for delay in ("0.1", "0.2", "0.3", "0.3")
    ]


def test_the_wait_is_short_again_after_the_process_kept_well_for_a_while(tmp_path, python, lines, eventually):
    backoff = Backoff(first_s=0.05, longest_s=30.0, healthy_after_s=0.3)
    program = (
        "import pathlib, time; seen = pathlib.Path('runs'); count = len(seen.read_text()) if seen.exists() else 0;"
        "seen.write_text('x' * (count + 1)); time.sleep(0.5 if count == 2 else 0); raise SystemExit(count)"
    )

    with Supervisor(tmp_path / "logs", write_line=lines.append, backoff=backoff) as supervisor:
        supervisor.start(python(program))
        seen = eventually(lambda: len(lines) >= 3)

    assert seen
    assert [line.rsplit("in ", 1)[1] for line in lines[:3]] == ["0.05 s", "0.1 s", "0.05 s"]


def test_a_process_ended_by_a_signal_is_reported_with_it(supervisor, python, lines, eventually):
    supervisor.start(python("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"))

    seen = eventually(lambda: lines)

    assert seen
    assert lines[0] == "defectoscope | child was ended by signal 11; starting it again in 0.1 s"


def test_a_program_that_does_not_exist_is_reported_and_tried_again(supervisor, tmp_path, lines, eventually):
    environment = plain_environment(tmp_path)
    supervisor.start(Server(name="child", argv=("no-such-program",), env=environment, cwd=tmp_path))

    seen = eventually(lambda: len(lines) >= 2)

    assert seen
    assert lines[0].startswith("child      | no-such-program could not be started: ")
    assert lines[1] == "defectoscope | child ended with status 127; starting it again in 0.1 s"


def test_a_server_that_ends_before_it_is_ready_is_an_error_with_the_end_of_its_log(supervisor, python, tmp_path):
    server = python("print('the reason'); raise SystemExit(1)", is_ready=lambda: False)

    with pytest.raises(ServerStartFailed) as failure:
        supervisor.start(server)

    assert failure.value.message == (
        f"child ended with status 1. The last lines of {tmp_path / 'logs' / 'child.log'}:\nthe reason"
    )
    assert supervisor.guardian_ids() == {}


def test_a_server_that_is_not_ready_in_time_is_stopped(supervisor, python, ours):
    server = python("import time; time.sleep(60)", is_ready=lambda: False, ready_timeout_s=0.5)

    with pytest.raises(ServerStartFailed, match=r"was not ready after 0\.5 s"):
        supervisor.start(server)

    assert ours() == []


def test_when_one_of_several_fails_to_start_the_others_are_stopped(supervisor, python, ours):
    good = python("import time; time.sleep(60)", name="good")
    bad = python("raise SystemExit(1)", name="bad", is_ready=lambda: False)

    with pytest.raises(ServerStartFailed, match="bad ended with status 1"):
        supervisor.start_all([good, bad])

    assert ours() == []


def test_lines_carry_the_name_and_are_kept_in_a_file_even_without_their_end(
    supervisor, python, lines, tmp_path, eventually
):
    program = "import sys; print('to output'); print('to error', file=sys.stderr); print('no end', end='', flush=True)"

    supervisor.start(python(f"{program}; import time; time.sleep(60)", name="talker"))
    seen = eventually(lambda: len(lines) >= 2)
    supervisor.stop()

    assert seen
    assert sorted(lines) == ["talker     | no end", "talker     | to error", "talker     | to output"]
    assert sorted((tmp_path / "logs" / "talker.log").read_text().splitlines()) == ["no end", "to error", "to output"]


def test_names_are_coloured_on_demand(tmp_path, python, lines, eventually):
    with Supervisor(tmp_path / "logs", write_line=lines.append, colour=True) as supervisor:
        supervisor.start(python("print('hello', flush=True); import time; time.sleep(60)"))
        seen = eventually(lambda: lines)

    assert seen
    assert lines[0] == "\x1b[36mchild      |\x1b[0m hello"


def test_a_reader_that_went_away_does_not_stop_the_processes(tmp_path, python, eventually):
    def write_line(_line):
        raise BrokenPipeError

    log = tmp_path / "logs" / "child.log"
    with Supervisor(tmp_path / "logs", write_line=write_line) as supervisor:
        supervisor.start(
            python("import time\nfor i in range(9): print(i, flush=True); time.sleep(0.02)\ntime.sleep(60)")
        )
        complete = eventually(lambda: log.exists() and log.read_text().split() == list("012345678"))

    assert complete


def test_a_log_beyond_its_limit_is_moved_aside_at_the_next_start(supervisor, python, tmp_path, eventually):
    log = tmp_path / "logs" / "child.log"
    log.parent.mkdir()
    log.write_bytes(b"x" * 10_000_001)

    supervisor.start(python("print('new', flush=True); import time; time.sleep(60)"))
    seen = eventually(lambda: log.exists() and log.read_text() == "new\n")

    assert seen
    assert log.with_name("child.log.1").stat().st_size == 10_000_001


STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
)


def test_a_process_that_ignores_the_signal_is_killed_in_time(supervisor, python, lines, eventually, ours):
    supervisor.start(python(STUBBORN, name="first"))
    supervisor.start(python(STUBBORN, name="second"))
    assert eventually(lambda: len(lines) == 2)

    before_s = time.monotonic()
    supervisor.stop(timeout_s=3.0)
    took_s = time.monotonic() - before_s

    assert took_s < 3.0
    assert ours() == []


def test_children_of_a_process_end_with_it_even_when_they_left_its_session(supervisor, python, lines, eventually, ours):
    family = (
        "import subprocess, sys, time;"
        f"arguments = [sys.executable, '-c', {STUBBORN!r}, sys.argv[1]];"
        "subprocess.Popen(arguments); subprocess.Popen(arguments, start_new_session=True); time.sleep(60)"
    )
    supervisor.start(python(family))
    assert eventually(lambda: len(lines) == 2)
    before = len(ours())

    supervisor.stop(timeout_s=4.0)

    # The guardian, the process and its two children.
    assert before == 4
    assert ours() == []


def test_children_that_a_crashed_process_leaves_are_gone_before_it_is_started_again(
    supervisor, python, lines, eventually
):
    # The child holds a port that the process needs: it can only start again when the child is gone.
    program = (
        "import socket, subprocess, sys; listener = socket.create_server(('127.0.0.1', int(open('port').read())));"
        "listener.set_inheritable(True); print('listening', flush=True);"
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'], close_fds=False); raise SystemExit(1)"
    )
    server = python(f"import sys; sys.tracebacklimit = 0\n{program}")
    with socket.create_server(("127.0.0.1", 0)) as free:
        (server.cwd / "port").write_text(str(free.getsockname()[1]))

    supervisor.start(server)
    seen = eventually(lambda: lines.count("child      | listening") >= 3)

    assert seen
    assert not [line for line in lines if "in use" in line]


def test_processes_end_in_reverse_order_of_their_start(supervisor, python, lines, eventually):
    program = (
        "import signal, sys, time\n"
        "def end(*_): time.sleep(0.1); print('end', flush=True); sys.exit()\n"
        "signal.signal(signal.SIGTERM, end); print('begin', flush=True); time.sleep(60)"
    )
    for name in ("one", "two", "three"):
        supervisor.start(python(program, name=name))
    assert eventually(lambda: len(lines) == 3)

    supervisor.stop()

    assert [line.split()[0] for line in lines[3:]] == ["three", "two", "one"]


def test_the_stop_signal_is_the_one_asked_for(supervisor, python, lines, eventually):
    program = (
        "import signal, sys, time\n"
        "def end(*_): print('interrupted', flush=True); sys.exit()\n"
        "signal.signal(signal.SIGINT, end); print('begin', flush=True); time.sleep(60)"
    )
    supervisor.start(python(program, stop_signal=signal.SIGINT))
    assert eventually(lambda: lines)

    supervisor.stop()

    assert lines == ["child      | begin", "child      | interrupted"]


def test_stopping_ends_the_wait_before_a_restart(tmp_path, python, lines, eventually):
    with Supervisor(tmp_path / "logs", write_line=lines.append, backoff=Backoff(first_s=60.0)) as supervisor:
        supervisor.start(python("raise SystemExit(1)"))
        assert eventually(lambda: lines)
        before_s = time.monotonic()

        supervisor.stop()

        assert time.monotonic() - before_s < 1.0


def test_a_process_inherits_nothing_but_input_output_and_error(supervisor, python, lines, eventually):
    reading, writing = os.pipe()
    program = "import os; print(sorted(map(int, os.listdir('/dev/fd')))[:-1], flush=True); import time; time.sleep(60)"

    supervisor.start(python(program, held_fd=reading))
    seen = eventually(lambda: lines)
    os.close(reading)
    os.close(writing)

    assert seen
    assert lines == ["child      | [0, 1, 2]"]


def test_when_a_guardian_is_killed_its_process_goes_too_and_both_come_back(supervisor, python, lines, eventually, ours):
    supervisor.start(python("import os, time; print(os.getpid(), flush=True); time.sleep(60)"))
    assert eventually(lambda: lines)
    old = ours()

    os.kill(supervisor.guardian_ids()["child"], signal.SIGKILL)
    back = eventually(lambda: len(lines) >= 3)

    assert back
    assert lines[1] == "defectoscope | child lost its guardian (signal 9); starting it again in 0.1 s"
    assert len(old) == 2
    assert len([process for process in ours() if process not in old]) == 2
    assert [process for process in ours() if process in old] == []


FOREGROUND = """
import pathlib, sys
from defectoscope.embedded.server import Server
from defectoscope.embedded.supervisor import Supervisor
logs, marker, program = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3]
with Supervisor(logs, write_line=lambda line: print(line, flush=True)) as supervisor:
    for name in ("server", "worker"):
        argv = (sys.executable, "-c", program, marker)
        supervisor.start(Server(name=name, argv=argv, env={"PATH": "/usr/bin:/bin"}, cwd=logs.parent))
    supervisor.run_until_stopped()
print("ended in order")
"""

WITH_A_CHILD = (
    "import subprocess, sys, time; sleep = 'import time; time.sleep(60)';"
    "subprocess.Popen([sys.executable, '-c', sleep, sys.argv[1]]); print('running', flush=True); time.sleep(60)"
)


@pytest.fixture
def foreground(tmp_path, marker):
    """A program of its own that runs two processes in the foreground, each with a child."""
    arguments = [sys.executable, "-c", FOREGROUND, str(tmp_path / "logs"), marker, WITH_A_CHILD]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, start_new_session=True) as program:
        yield program
        program.kill()


def catches(process_id, number):
    """Whether a process has a handler for a signal. Python brings one for SIGINT, but none for SIGTERM."""
    status = Path(f"/proc/{process_id}/status").read_text()
    caught = next(int(line.split()[1], 16) for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(caught >> (number - 1) & 1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_a_signal_ends_everything_in_order(foreground, ours, eventually, number):
    running = sorted(foreground.stdout.readline() for _ in range(2))
    assert eventually(lambda: catches(foreground.pid, signal.SIGTERM))

    foreground.send_signal(number)
    rest, _ = foreground.communicate(timeout=10)

    assert running == ["server     | running\n", "worker     | running\n"]
    assert rest.splitlines()[-2:] == ["defectoscope | stopping", "ended in order"]
    assert foreground.returncode == 0
    assert ours() == []


def test_nothing_outlives_a_supervisor_that_is_killed(foreground, eventually, ours):
    for _ in range(2):
        foreground.stdout.readline()
    before = len(ours())

    foreground.kill()
    gone = eventually(lambda: ours() == [], timeout_s=8.0)

    # The supervisor itself, two guardians, two processes and their children.
    assert before == 7
    assert gone
