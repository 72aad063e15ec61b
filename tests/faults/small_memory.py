"""A group of processes that may take so much memory and no more: the kernel kills whoever asks for more."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

_ROOT = Path("/sys/fs/cgroup")
_EMPTY_WITHIN_S = 10.0


@dataclass(frozen=True, slots=True)
class MemoryGroup:
    """A control group.

    Attributes:
        directory: of the group.
        is_unified: version 2 of control groups, whose files have other names.
    """

    directory: Path
    is_unified: bool

    def command(self, *argv: str) -> tuple[str, ...]:
        """Return a command line that runs another one inside the group."""
        return ("/bin/sh", "-c", f'echo $$ > "{self.directory}/cgroup.procs" && exec "$@"', "sh", *argv)

    def limit(self, more_bytes: int) -> None:
        """Allow so much more than is in use now, and no swap."""
        used_bytes = int(self._read("memory.current" if self.is_unified else "memory.usage_in_bytes"))
        if self.is_unified:
            (self.directory / "memory.swap.max").write_text("0")
        name = "memory.max" if self.is_unified else "memory.limit_in_bytes"
        (self.directory / name).write_text(str(used_bytes + more_bytes))

    def count_kills(self) -> int:
        """Return how many processes of the group the kernel has killed."""
        name = "memory.events" if self.is_unified else "memory.oom_control"
        facts = dict(line.split() for line in self._read(name).splitlines())
        return int(facts["oom_kill"])

    def _read(self, name: str) -> str:
        return (self.directory / name).read_text()


@contextmanager
def memory_group() -> Iterator[MemoryGroup]:
    """Make a group. Where that is not allowed the test fails and says so: what was not tried was not survived."""
    is_unified = (_ROOT / "cgroup.controllers").exists()
    directory = (_ROOT if is_unified else _ROOT / "memory" / _own_group()) / f"defectoscope-{secrets.token_hex(4)}"
    try:
        if is_unified:
            (_ROOT / "cgroup.subtree_control").write_text("+memory")
        directory.mkdir()
    except OSError as exc:
        pytest.fail(
            f"A kill for want of memory is tried in a control group, and this user may not make one ({exc}). "
            f"Run the test as root, where {_ROOT} is writable."
        )
    try:
        yield MemoryGroup(directory, is_unified)
    finally:
        deadline = time.monotonic() + _EMPTY_WITHIN_S
        while (directory / "cgroup.procs").read_text() and time.monotonic() < deadline:
            time.sleep(0.1)
        directory.rmdir()


def _own_group() -> str:
    """Return the group of version 1 that this process is in; one below it is bound by its limits, too."""
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    return next(path for _, names, path in (line.split(":", 2) for line in lines) if "memory" in names).lstrip("/")
