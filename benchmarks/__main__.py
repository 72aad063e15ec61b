"""`make bench`: the whole worker path against the bare model call, interleaved, in one run on one machine."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from dataclasses import asdict

from rich.console import Console
from rich.table import Table

from benchmarks.figures import median_ratio
from benchmarks.models import add_model_options, enough_images, model_to_measure
from benchmarks.output import add_out_option, write_figures
from benchmarks.pipeline import CASES, Measurement, measure
from benchmarks.place import scratch_directory
from benchmarks.processes import machine_facts
from defectoscope.embedded.stack import EmbeddedStack
from defectoscope.logs import configure_logs
from worker.metrics import STAGES


def main() -> None:
    """Measure every case, print the table, write the raw figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("--images", type=int, default=enough_images(512), help="images in each job")
    parser.add_argument("--case", type=int, choices=range(len(CASES)), help="only this one")
    parser.add_argument("--repeats", type=int, default=3, help="interleaved repeats, of which the median counts")
    add_model_options(parser)
    add_out_option(parser)
    arguments = parser.parse_args()
    configure_logs(level="warning", form="console", service="bench")

    with scratch_directory() as scratch:
        stack = EmbeddedStack(scratch / "data")
        with stack as connections:
            measured = [
                measure(
                    case,
                    model=model_to_measure(case.encoder, kept_in=arguments.models, training_s=arguments.training_s),
                    connections=connections,
                    servers=list(stack.supervisor.guardian_ids().values()),
                    scratch=scratch / str(number),
                    images=arguments.images,
                    repeats=arguments.repeats,
                )
                for number, case in enumerate(CASES)
                if arguments.case in (None, number)
            ]
    # Wide enough for the tables in a file, too.
    console = Console(width=130)
    show(measured, console=console)
    facts = machine_facts("onnxruntime-gpu", "opencv-python-headless", "pillow")
    console.print(facts)
    write_figures(arguments.out, machine=facts, cases=[asdict(one) for one in measured])


def show(measured: Sequence[Measurement], *, console: Console) -> None:
    """Print what the worker reaches, and where its CPU time goes."""
    goals = {case.name: case.goal for case in CASES}
    table = Table(title="Worker path against bare session.run (1.00 = no overhead)")
    for column in ("case", "bare img/s", "worker img/s", "ratio", "goal", "CPU ms/img: bare", "worker", "servers"):
        table.add_column(column, justify="left" if column == "case" else "right")
    stages = Table(title="CPU milliseconds an image by stage, beside the model")
    stages.add_column("case")
    for name in STAGES:
        stages.add_column(name, justify="right")
    for one in measured:
        bare, worker = statistics.median(one.bare_s), statistics.median(one.worker_s)
        table.add_row(
            one.case,
            f"{one.images / bare:.1f}",
            f"{one.images / worker:.1f}",
            f"{median_ratio(one.bare_s, one.worker_s):.2f}",
            f"{goals[one.case]:.2f}",
            *(
                f"{statistics.median(used) * 1000 / one.images:.1f}"
                for used in (one.bare_cpu_s, one.worker_cpu_s, one.servers_cpu_s)
            ),
        )
        stages.add_row(one.case, *(f"{one.stage_cpu_ms[name]:.2f}" for name in STAGES))
    console.print(table)
    console.print(stages)


if __name__ == "__main__":
    main()
