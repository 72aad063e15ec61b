"""The parent of one supervised process: ends it, and all that it started, when told to or when the supervisor is gone.

The supervisor starts this file as a script of its own interpreter, one guardian for each process, and holds the
writing end of a pipe. A line on the pipe, or its end, means "stop": an orderly stop and the sudden death of the
supervisor are therefore one and the same event. On Linux the guardian adopts whatever its process leaves behind, so
that nothing survives; elsewhere it can reach the process group only.

It refuses to import anything of ours: it must start in milliseconds and work when the package is broken.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import sys
import time
from pathlib import Path
from typing import NoReturn

_DEFAULT_GRACE_S = 10.0
_REST_GRACE_S = 2.0
_STANDARD_ERROR = 2
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_COMMAND_NOT_STARTED = 127


class _Stop:
    """When the process has to be gone; infinity until somebody asks."""

    def __init__(self) -> None:
        self.deadline = float("inf")

    def ask(self, grace_s: float) -> None:
        self.deadline = min(self.deadline, time.monotonic() + grace_s)


def main(arguments: list[str]) -> int:
    """Run a command and guard it.

    Args:
        arguments: The descriptor of the pipe, the number of the stop signal, user id and group id (-1: keep), and
            then the command line.

    Returns:
        The exit status of the command, or 128 plus the number of the signal that ended it.
    """
    lifeline, stop_signal, user_id, group_id = (int(argument) for argument in arguments[:4])
    # Nothing that we were given may leak into the process: neither our pipe nor a lock that is held through us.
    for entry in Path("/dev/fd").iterdir():
        with contextlib.suppress(OSError):
            if int(entry.name) > _STANDARD_ERROR:
                os.set_inheritable(int(entry.name), False)
    stop = _Stop()
    wake = _wake_on_signals(stop)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    process_id = os.fork()
    if process_id == 0:
        _become(arguments[4:], user_id=user_id, group_id=group_id)
    status = _wait(process_id, stop, lifeline=lifeline, wake=wake, stop_signal=stop_signal)
    _end_rest(process_id, stop)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _become(argv: list[str], *, user_id: int, group_id: int) -> NoReturn:
    """In the new process: own session, right user, default signals, then the command."""
    try:
        os.setsid()
        if user_id >= 0:
            os.setgroups([])
            os.setgid(group_id)
            os.setuid(user_id)
        # If the guardian itself is killed nobody is left to ask politely. The kernel forgets this request when the
        # user changes, hence the order.
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        os.execvp(argv[0], argv)  # noqa: S606 - running a command is the purpose of this file
    except OSError as exc:
        os.write(_STANDARD_ERROR, f"{argv[0]} could not be started: {exc}\n".encode())
    os._exit(_COMMAND_NOT_STARTED)


def _wait(process_id: int, stop: _Stop, *, lifeline: int, wake: int, stop_signal: int) -> int:
    """Wait for the process to end, stopping it when asked to; return its wait status."""
    watched = [lifeline, wake]
    asked = False
    while True:
        ended = _reap(process_id)
        if ended is not None:
            return ended
        if stop.deadline < float("inf") and not asked:
            asked = True
            os.kill(process_id, stop_signal)
        left_s = stop.deadline - time.monotonic()
        if left_s <= 0:
            _signal_group(process_id, signal.SIGKILL)
            return os.waitpid(process_id, 0)[1]
        ready, _, _ = select.select(watched, [], [], None if left_s == float("inf") else left_s)
        if wake in ready:
            os.read(wake, 512)
        if lifeline in ready:
            told = os.read(lifeline, 512).split()
            if told:
                stop.ask(min(float(word) for word in told))
            else:
                watched = [wake]
                stop.ask(_DEFAULT_GRACE_S)


def _end_rest(process_id: int, stop: _Stop) -> None:
    """End what the process left behind, politely while there is time."""
    term_until = min(stop.deadline, time.monotonic() + _REST_GRACE_S)
    kill_until = max(term_until, time.monotonic()) + _REST_GRACE_S
    polite: set[int] = set()
    while time.monotonic() < kill_until:
        _reap(None)
        rest = _children()
        if not rest and not _signal_group(process_id, 0):
            return
        if time.monotonic() >= term_until:
            _signal_group(process_id, signal.SIGKILL)
            for child in rest:
                _signal(child, signal.SIGKILL)
        else:
            if not polite:
                _signal_group(process_id, signal.SIGTERM)
            for child in rest - polite:
                _signal(child, signal.SIGTERM)
            polite |= rest | {process_id}
        time.sleep(0.01)


def _reap(process_id: int | None) -> int | None:
    """Collect every child that has ended; return the wait status of ``process_id`` if it is among them."""
    found: int | None = None
    with contextlib.suppress(ChildProcessError):
        while True:
            ended, status = os.waitpid(-1, os.WNOHANG)
            if ended == 0:
                break
            if ended == process_id:
                found = status
    return found


def _children() -> set[int]:
    """The processes whose parent we are now; empty where the kernel does not tell."""
    try:
        return {int(word) for word in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()}
    except OSError:
        return set()


def _signal(process_id: int, number: int) -> None:
    with contextlib.suppress(OSError):
        os.kill(process_id, number)


def _signal_group(group_id: int, number: int) -> bool:
    """Signal a process group; False when it has no member left."""
    try:
        os.killpg(group_id, number)
    except PermissionError:
        return True
    except OSError:
        return False
    return True


def _wake_on_signals(stop: _Stop) -> int:
    """Make signals end a wait in ``select``; being told to end by a signal counts as being asked to stop."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: stop.ask(_DEFAULT_GRACE_S))
    return reading


def _prctl(option: int, argument: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, argument, 0, 0, 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
