"""`python -m benchmarks.latency`: one image at a time on an idle system, from the request to its visible result.

The system is what `defectoscope up` starts: embedded servers, API, Celery worker, trainer and beat as processes of
their own, with the settings it has by default. The images lie in its bucket already. What is timed: from the call that
submits a job of one image to the first answer of ``GET /v1/results`` that has its result, asked again and again
over one HTTP connection, a few milliseconds apart. Every image is a file that was never seen before.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from time import monotonic, perf_counter, sleep

from rich.console import Console
from rich.table import Table

from benchmarks.figures import percentile
from benchmarks.models import put_in_service, random_model
from benchmarks.output import add_out_option, met, write_figures
from benchmarks.place import draw_images, numbered, scratch_directory, store_images
from benchmarks.processes import machine_facts
from defectoscope.client import Client
from defectoscope.connect import open_database, s3_config
from defectoscope.database import Database
from defectoscope.events import list_events
from defectoscope.settings import ENVIRONMENT_PREFIX, Settings, required
from defectoscope.storage import S3Uri, open_s3

#: A submitted image is to be seen within this time, half of the times.
GOAL_S = 0.3
_STARTED_S = 120.0
_WARM_S = 120.0
_VISIBLE_S = 60.0
_STOPPED_S = 60.0
_SIZE_WH = (512, 512)
#: Jobs before the clock: the first ones open connections everywhere.
_WARM_UP = 5
#: Between two jobs, so that the system is idle again.
_PAUSE_S = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Of one job of one image.

    Attributes:
        submitted_s: until the API had answered the submission.
        visible_s: until the result was seen.
        model_ms: what the worker says the model call took.
    """

    submitted_s: float
    visible_s: float
    model_ms: float


@contextmanager
def running_system(scratch: Path) -> Iterator[Settings]:
    """Run `defectoscope up` for as long as the block lasts, and yield how to reach it.

    Args:
        scratch: existing; everything it writes goes below it.

    Raises:
        RuntimeError: it did not start; the message ends with what it printed.
    """
    connection_file, log = scratch / "connection.env", scratch / "up.log"
    clean = {name: value for name, value in os.environ.items() if not name.startswith(ENVIRONMENT_PREFIX)}
    ours = {
        "CONNECTION_FILE": connection_file,
        "WORKER__MODEL_CACHE_DIR": scratch / "models",
        "WORKER__DEVICE": "cpu",
        "TRAINER__WORK_DIR": scratch / "training",
    }
    environment = clean | {ENVIRONMENT_PREFIX + name: str(value) for name, value in ours.items()}
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 -- our own interpreter
            [sys.executable, "-m", "defectoscope", "up", "--data-dir", str(scratch / "data"), "--port", "0"],
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        deadline = monotonic() + _STARTED_S
        while b" ready at " not in log.read_bytes():
            if process.poll() is not None or monotonic() > deadline:
                raise RuntimeError(f"The system did not start:\n{log.read_text(errors='replace')[-2000:]}")
            sleep(0.1)
        yield Settings(_env_file=connection_file)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(_STOPPED_S)


def measure(settings: Settings, *, encoder: str, jobs: int, interval_s: float, scratch: Path) -> list[Latency]:
    """Put a model in service on a running system and send it one image after another.

    Args:
        settings: of the running system.
        encoder: of a DeepLabV3+ at 256 x 256 from a random start.
        jobs: that count; a few before them do not.
        interval_s: between two questions for the result.
        scratch: existing; the model's files go below it.
    """
    storage = open_s3(s3_config(settings))
    database = open_database(settings)
    put_in_service(random_model(encoder, directory=scratch / "model"), database=database, storage=storage)
    count = _WARM_UP + jobs
    (picture,) = draw_images(1, size_wh=_SIZE_WH, seed=1)
    keys = store_images(
        [numbered(picture.jpeg, number) for number in range(count)], storage=storage, prefix="bench/single"
    )
    _wait_for(lambda: _is_warm(database), within_s=_WARM_S)
    database.close()
    taken = []
    token = required(settings.api.token, "api.token").get_secret_value()
    with Client(settings.api.url, token=token) as client:
        for key in keys:
            sleep(_PAUSE_S)
            taken.append(_time_job(client, str(S3Uri(settings.storage.bucket, key)), interval_s=interval_s))
    return taken[_WARM_UP:]


def _time_job(client: Client, uri: str, *, interval_s: float) -> Latency:
    began_at = perf_counter()
    job = client.jobs.submit({"kind": "images", "images": [{"name": "single.jpg", "uri": uri, "label_uri": None}]})
    submitted_s = perf_counter() - began_at
    while not (results := list(client.results.list(job=job["id"]))):
        if perf_counter() - began_at > _VISIBLE_S:
            raise RuntimeError(f"Job {job['id']} had no result within {_VISIBLE_S:.0f} s.")
        sleep(interval_s)
    return Latency(
        submitted_s=submitted_s, visible_s=perf_counter() - began_at, model_ms=float(results[0]["latency_ms"])
    )


def _is_warm(database: Database) -> bool:
    """Return whether the worker has said that it loaded the model and ran it."""
    with database.transaction() as session:
        return bool(list_events(session, kind="worker.switched"))


def _wait_for(condition: Callable[[], bool], *, within_s: float) -> None:
    deadline = monotonic() + within_s
    while not condition():
        if monotonic() > deadline:
            raise RuntimeError(f"The worker was not warm within {within_s:.0f} s.")
        sleep(0.1)


def show(taken: Sequence[Latency], *, encoder: str, console: Console) -> None:
    """Print the table."""
    table = Table(title=f"One image on an idle system, {encoder}, {len(taken)} jobs, milliseconds")
    for column in ("", "p50", "p95", "most"):
        table.add_column(column, justify="right")
    for name, values_ms in (
        ("submission answered", [one.submitted_s * 1000 for one in taken]),
        ("result visible", [one.visible_s * 1000 for one in taken]),
        ("of it the model", [one.model_ms for one in taken]),
    ):
        figures = (percentile(values_ms, 0.5), percentile(values_ms, 0.95), max(values_ms))
        table.add_row(name, *(f"{figure:.0f}" for figure in figures))
    console.print(table)
    goal_ms = 1000 * GOAL_S
    p50_ms = 1000 * percentile([one.visible_s for one in taken], 0.5)
    console.print(f"Goal: p50 under {goal_ms:.0f} ms; {met(p50_ms < goal_ms)}.")


def make_parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.latency")
    parser.add_argument("--encoder", default="mobilenet_v2", help="of DeepLabV3+ at 256 x 256")
    parser.add_argument("--jobs", type=int, default=30, help="that count")
    parser.add_argument("--interval-ms", type=float, default=5, help="between two questions for the result")
    add_out_option(parser)
    return parser


def main() -> None:
    """Measure, print the table, write the raw figures."""
    arguments = make_parser().parse_args()
    console = Console(width=120)
    with scratch_directory() as scratch, running_system(scratch) as settings:
        taken = measure(
            settings,
            encoder=arguments.encoder,
            jobs=arguments.jobs,
            interval_s=arguments.interval_ms / 1000,
            scratch=scratch,
        )
    show(taken, encoder=arguments.encoder, console=console)
    facts = machine_facts("onnxruntime-gpu", "fastapi", "celery")
    console.print(facts)
    write_figures(arguments.out, machine=facts, encoder=arguments.encoder, jobs=[asdict(one) for one in taken])


if __name__ == "__main__":
    main()
