"""`make bench`: the whole worker path against the bare model call, interleaved, in one run on one machine."""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import onnxruntime
from rich.console import Console
from rich.table import Table

from benchmarks.pipeline import CASES, measure
from defectoscope.embedded.stack import EmbeddedStack
from worker.engine import available_threads


def main() -> None:
    """Measure every case, print the table, write the raw figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("--images", type=int, default=64, help="images in each job")
    parser.add_argument("--repeats", type=int, default=5, help="interleaved repeats, of which the median counts")
    parser.add_argument("--out", type=Path, default=Path("benchmark-results.json"), help="raw figures")
    arguments = parser.parse_args()

    # Wide enough for the table in a file, too.
    console = Console(width=120)
    table = Table(title="Worker path against bare session.run (1.00 = no overhead)")
    for column in ("case", "bare img/s", "worker img/s", "ratio", "CPU ms an image around the model"):
        table.add_column(column, justify="left" if column == "case" else "right")
    with tempfile.TemporaryDirectory(prefix="defectoscope-bench-", ignore_cleanup_errors=True) as scratch:
        # PostgreSQL runs as another user when we are root and has to get in.
        Path(scratch).chmod(0o711)
        with EmbeddedStack(Path(scratch) / "data") as connections:
            measured = [
                measure(
                    case,
                    connections=connections,
                    scratch=Path(scratch) / case.name,
                    images=arguments.images,
                    repeats=arguments.repeats,
                )
                for case in CASES
            ]
    for result in measured:
        bare, worker = statistics.median(result.bare_s), statistics.median(result.worker_s)
        ratio = statistics.median(b / w for b, w in zip(result.bare_s, result.worker_s, strict=True))
        table.add_row(
            result.case,
            f"{result.images / bare:.1f}",
            f"{result.images / worker:.1f}",
            f"{ratio:.2f}",
            f"{statistics.median(result.overhead_cpu_s) * 1000 / result.images:.1f}",
        )
    console.print(table)
    machine = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "processor": platform.processor() or platform.machine(),
        "cores": available_threads(),
        "python": platform.python_version(),
        "onnxruntime": onnxruntime.__version__,
    }
    console.print(machine)
    arguments.out.write_text(json.dumps({"machine": machine, "cases": [asdict(m) for m in measured]}, indent=1) + "\n")


if __name__ == "__main__":
    main()
