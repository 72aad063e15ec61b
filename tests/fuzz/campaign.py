"""Runs a campaign: processes that take input after input, watched from outside for crashes, hangs and memory."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.fuzz.child import NOTE

REPOSITORY = Path(__file__).resolve().parents[2]
HANG_S = 10.0
#: Until a process has imported its libraries and opened its connections, or closed them.
_START_S = 120.0
#: A campaign that breaks this often has said enough.
_MOST_BROKEN = 25


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken:
    """An input that broke a promise; it can be drawn again from its index."""

    kind: str
    index: int
    how: str


@dataclass(slots=True)
class Report:
    """What came of the inputs of a kind.

    Attributes:
        outcomes: how many ended how: "ok", or the code of a named error.
        broken: those that ended otherwise.
        times_ms: of each that ended well.
        peak_bytes: the most memory that a process of them had.
    """

    kind: str
    outcomes: Counter[str] = field(default_factory=Counter)
    broken: list[Broken] = field(default_factory=list)
    times_ms: list[float] = field(default_factory=list)
    peak_bytes: int = 0

    @property
    def count(self):
        """Inputs that were run."""
        return sum(self.outcomes.values()) + len(self.broken)

    def quantile_ms(self, share):
        """The time that this share of the inputs stayed below."""
        return sorted(self.times_ms)[min(len(self.times_ms) - 1, int(share * len(self.times_ms)))]


def run_kind(kind, *, count, seed, settings=None, hang_s=HANG_S, first=0):
    """Run inputs of a kind.

    Args:
        kind: one of `tests.fuzz.kinds.KINDS`.
        count: of inputs.
        seed: of all of them; the same seed draws the same.
        settings: of the servers, JSON-ready; for requests.
        hang_s: an input that takes longer is broken.
        first: index of the first input.
    """
    report = Report(kind)
    with tempfile.TemporaryDirectory(prefix="defectoscope-fuzz-") as scratch:
        note, results, trace = (Path(scratch, name) for name in ("note", "results", "trace"))
        results.touch()
        end = first + count
        while first < end and len(report.broken) < _MOST_BROKEN:
            note.write_bytes(NOTE.pack(-1, time.monotonic()))
            order = {"kind": kind, "first": first, "end": end, "seed": seed, "settings": settings}
            order |= {"note": str(note), "results": str(results)}
            with trace.open("wb") as stderr:
                process = subprocess.Popen(
                    [sys.executable, "-m", "tests.fuzz.child", json.dumps(order)],
                    cwd=REPOSITORY,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=stderr,
                )
                how = _watch(process, note, hang_s=hang_s)
            index, _ = NOTE.unpack(note.read_bytes())
            if how is None:
                break
            if index < first:
                raise RuntimeError(f"a process for the kind {kind} did not begin or end: {how}; {_last_line(trace)}")
            report.broken.append(Broken(kind=kind, index=index, how=f"{how}; {_last_line(trace)}"))
            first = index + 1
        _read_results(report, results)
    return report


def _watch(process, note, *, hang_s):
    """Wait for the end of a process, and say how it was broken; None where it was not."""
    try:
        while process.poll() is None:
            time.sleep(0.1)
            index, since_s = NOTE.unpack(note.read_bytes())
            if time.monotonic() - since_s > (_START_S if index < 0 else hang_s):
                return f"took longer than {hang_s:g} s"
    finally:
        process.kill()
        process.wait()
    if process.returncode == 0:
        return None
    return f"ended by signal {-process.returncode}" if process.returncode < 0 else "ended by an exception"


def _last_line(trace):
    lines = trace.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1][:300] if lines else "no trace"


def _read_results(report, results):
    for line in results.read_text(encoding="utf-8").splitlines():
        _, ms, peak_kib, outcome = line.split("\t")
        report.outcomes[outcome] += 1
        report.times_ms.append(float(ms))
        report.peak_bytes = max(report.peak_bytes, 1024 * int(peak_kib))
