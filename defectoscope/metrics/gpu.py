"""Memory of the GPUs, as the driver's own program tells it; without a GPU there is no figure, rather than a 0."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import time
from collections.abc import Iterable, Iterator
from threading import Lock

import structlog
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from defectoscope.metrics.families import Family

log = structlog.get_logger(__name__)

USED = Family(
    name="defectoscope_gpu_memory_used_bytes",
    meaning="Memory in use on a GPU that this process may use, by all processes together.",
    labels=("gpu", "name"),
)
TOTAL = Family(
    name="defectoscope_gpu_memory_total_bytes",
    meaning="Memory of a GPU that this process may use.",
    labels=("gpu", "name"),
)

_QUERY = "--query-gpu=index,name,memory.used,memory.total"
_LONGEST_S = 5.0
_MIB = 2**20


class GpuMemory(Collector):
    """Asks ``nvidia-smi``, which comes with the driver, at most once in ``keep_s`` seconds.

    ``CUDA_VISIBLE_DEVICES`` limits the figures to the GPUs that this process may use.
    """

    def __init__(self, *, keep_s: float = 5.0) -> None:
        """Args: keep_s: how long an answer is given again."""
        self._keep_s = keep_s
        self._lock = Lock()
        self._known: list[Metric] = []
        self._known_until_s = float("-inf")

    def describe(self) -> Iterable[Metric]:
        """Return both families without figures."""
        return [USED.metric(), TOTAL.metric()]

    def collect(self) -> Iterable[Metric]:
        """Return the figures of every GPU that gave any."""
        with self._lock:
            if time.monotonic() >= self._known_until_s:
                figures = list(_ask())
                self._known = [
                    USED.metric((labels, used) for labels, used, _ in figures),
                    TOTAL.metric((labels, total) for labels, _, total in figures),
                ]
                self._known_until_s = time.monotonic() + self._keep_s
            return self._known


def _ask() -> Iterator[tuple[tuple[str, str], float, float]]:
    """Yield (index, name), bytes used and bytes in all."""
    program = shutil.which("nvidia-smi")
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if program is None or visible in {"", "-1"}:
        return
    command = [program, _QUERY, "--format=csv,noheader,nounits", *([] if visible is None else [f"--id={visible}"])]
    try:
        answer = subprocess.run(  # noqa: S603 -- the driver's program, and nothing of a caller's
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_LONGEST_S, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError) as exc:
        log.debug("metrics.gpu_not_asked", reason=str(exc))
        return
    for row in csv.reader(answer.splitlines(), skipinitialspace=True):
        try:
            index, name, used_mib, total_mib = row
            yield (index, name), float(used_mib) * _MIB, float(total_mib) * _MIB
        except ValueError:
            # A part of a divided GPU has no figure of its own.
            log.debug("metrics.gpu_without_figure", row=row)
