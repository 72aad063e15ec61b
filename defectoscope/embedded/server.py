"""What the supervisor must know about a process to run it. A value: it starts nothing and watches nothing."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from defectoscope.embedded.account import Account

# Only these variables of ours reach a server: proxies, cloud credentials and settings of other tools must not.
_PASSED_ON = ("PATH", "TMPDIR", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A process to be supervised.

    Attributes:
        name: Names it in messages and its log file; letters, digits and hyphens.
        argv: The command line. It is visible to every user of the machine: no secret belongs here.
        env: The whole environment of the process. It may hold secrets, hence it is never shown.
        cwd: The working directory.
        account: The user to run as; None keeps the present one.
        stop_signal: The signal that asks for an orderly end.
        stop_timeout_s: The most it is given to end after the signal, however much time there is; then it is killed.
        umask: The file mode mask of the process; None keeps ours.
        ports: The loopback ports it will listen on.
        before_start: Called before every start, restarts included; raises a DefectoscopeError when it cannot go on.
        is_ready: Tells whether the process does its work yet; None takes a running process for a ready one.
        ready_timeout_s: How long the first start may take.
        held_fd: A file descriptor to be held open until the process and all its children are gone.
    """

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(repr=False)
    cwd: Path
    account: Account | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    stop_timeout_s: float = 10.0
    umask: int | None = None
    ports: tuple[int, ...] = ()
    before_start: Callable[[], None] | None = field(default=None, repr=False)
    is_ready: Callable[[], bool] | None = field(default=None, repr=False)
    ready_timeout_s: float = 30.0
    held_fd: int | None = None


def plain_environment(home: Path) -> dict[str, str]:
    """The environment in which an embedded server runs.

    Args:
        home: Stands in for the home directory, so that no configuration file of the user is picked up.

    Returns:
        A new mapping with the search paths of this process, the C locale and UTC.
    """
    passed_on = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return {**passed_on, "HOME": str(home), "LC_ALL": "C", "TZ": "UTC"}
