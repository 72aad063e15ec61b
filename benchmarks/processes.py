"""CPU time and memory of processes with everything they started. It starts and ends none."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]

from worker.device import has_vnni


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Resident memory of some processes, bytes: the sum counts shared pages once for each process."""

    largest: int
    total: int


def tree(pid: int, *, without: Iterable[int] = ()) -> list[psutil.Process]:
    """Return a process and everything below it, as far as it still runs.

    Args:
        pid: the root.
        without: processes that are left out, with everything below them.
    """
    left_out = {process.pid for root in without for process in tree(root)}
    try:
        root = psutil.Process(pid)
        found = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []
    return [process for process in found if process.pid not in left_out]


def cpu_s(pid: int, *, without: Iterable[int] = ()) -> float:
    """Return the CPU seconds, of user and kernel, of a process and everything below it, ended children included.

    Children that ended and were not waited for by any of them are missing.
    """
    total = 0.0
    for process in tree(pid, without=without):
        try:
            # On Linux: user, system, and the same two of children that were waited for.
            total += sum(process.cpu_times()[:4])
        except psutil.NoSuchProcess:
            continue
    return total


def memory(pid: int) -> Memory:
    """Return the resident memory of a process and everything below it; zeros when it is gone."""
    sizes = []
    for process in tree(pid):
        try:
            sizes.append(process.memory_info().rss)
        except psutil.NoSuchProcess:
            continue
    return Memory(largest=max(sizes, default=0), total=sum(sizes))


def machine_facts(*packages: str) -> dict[str, Any]:
    """Return what a figure is worth nothing without: when, the processor, its cores, versions of packages.

    Without VNNI int8 is several times slower, and all that is done beside it seems cheap.
    """
    return {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "vnni": has_vnni(),
        "python": platform.python_version(),
        **{package: version(package) for package in packages},
    }


def _cpu_info() -> str:
    try:
        return Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""


def _processor() -> str:
    names = [line.partition(":")[2].strip() for line in _cpu_info().splitlines() if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
