"""`python -m benchmarks.scaling`: the same job on one, two and four worker processes with a slowed engine.

Every worker's model call sleeps for a fixed time, as if a GPU of its own did the work (`benchmarks.slow_worker`), so
that what is seen is how well the workers share a job and what an image costs the servers. Each run has a database of
its own; all workers are warm before the job is submitted; the images lie in the storage. Beside speed it prints the CPU
time of each server for an image, and transactions and broker commands for an image, as the servers count them.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import sleep

import psycopg
import redis
import sqlalchemy
from rich.console import Console
from rich.table import Table

from benchmarks.figures import share_of_linear
from benchmarks.jobs import images_of, run_job, wait_until_warm
from benchmarks.models import costless_model, put_in_service
from benchmarks.output import add_out_option, met, write_figures
from benchmarks.place import (
    Place,
    draw_turned,
    make_place,
    numbered,
    scratch_directory,
    store_images,
    worker_process,
)
from benchmarks.processes import cpu_s, machine_facts
from defectoscope.connect import open_database, s3_config
from defectoscope.embedded.stack import Connections, EmbeddedStack
from defectoscope.embedded.supervisor import Supervisor
from defectoscope.logs import configure_logs
from defectoscope.settings import required
from defectoscope.storage import open_s3

BATCH_SIZE = 8
#: What is good enough: the share of linear scaling.
GOAL_SHARE = 0.9
#: So many that few of their masks are among those that a worker remembers as stored.
_PICTURES = 1280
_SIDE_PX = 256
_WARM_S = 180.0
_DONE_S = 1800.0
#: Each look is a transaction, and transactions are counted.
_LOOK_S = 0.5
#: PostgreSQL's sessions hand in their counts at most once a second.
_COUNTED_AFTER_S = 1.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One job.

    Attributes:
        workers: processes.
        images: in the job.
        seconds: from the submission to the end of the job.
        servers_cpu_ms: CPU milliseconds of each server for an image.
        workers_cpu_ms: of all workers, for an image.
        transactions: committed in PostgreSQL, for an image.
        commands: that the broker processed, for an image; workers that wait ask for messages as well.
    """

    workers: int
    images: int
    seconds: float
    servers_cpu_ms: Mapping[str, float]
    workers_cpu_ms: float
    transactions: float
    commands: float

    @property
    def images_per_s(self) -> float:
        """Speed of the whole job."""
        return self.images / self.seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class _Counts:
    servers_cpu_s: Mapping[str, float]
    workers_cpu_s: float
    transactions: int
    commands: int


def measure(
    *, workers: int, keys: Sequence[str], sleep_s: float, stack: EmbeddedStack, connections: Connections, scratch: Path
) -> Run:
    """Run the job once.

    Args:
        workers: processes.
        keys: of the images.
        sleep_s: that every model call takes.
        stack: whose servers run.
        connections: how to reach them.
        scratch: a directory that does not exist yet.
    """
    scratch.mkdir()
    place = make_place(
        connections, scratch=scratch, sections={"worker": {"batch_size": BATCH_SIZE, "intra_op_threads": 1}}
    )
    database = open_database(place.settings)
    model = costless_model(scratch / "model.onnx")
    version_id = put_in_service(model, database=database, storage=open_s3(s3_config(place.settings)))
    servers = stack.supervisor.guardian_ids()
    with Supervisor(scratch / "logs") as supervisor:
        processes = [
            worker_process(place, name=f"worker{number}", cwd=scratch, app="benchmarks.slow_worker")
            for number in range(workers)
        ]
        supervisor.start_all(
            [replace(process, env={**process.env, "BENCH_SLEEP_S": str(sleep_s)}) for process in processes]
        )
        wait_until_warm(database, workers=workers, within_s=_WARM_S)
        guardians = list(supervisor.guardian_ids().values())
        before = _count(place, servers=servers, workers=guardians)
        seconds = run_job(
            place,
            source=images_of(place, keys),
            version_id=version_id,
            threshold=model.contract.threshold,
            within_s=_DONE_S,
            look_every_s=_LOOK_S,
        )
        after = _count(place, servers=servers, workers=guardians)
    database.close()
    images = len(keys)
    return Run(
        workers=workers,
        images=images,
        seconds=seconds,
        servers_cpu_ms={
            name: (used - before.servers_cpu_s[name]) * 1000 / images for name, used in after.servers_cpu_s.items()
        },
        workers_cpu_ms=(after.workers_cpu_s - before.workers_cpu_s) * 1000 / images,
        transactions=(after.transactions - before.transactions) / images,
        commands=(after.commands - before.commands) / images,
    )


def _count(place: Place, *, servers: Mapping[str, int], workers: Sequence[int]) -> _Counts:
    cpu = {name: cpu_s(pid) for name, pid in servers.items()}
    workers_cpu_s = sum(map(cpu_s, workers))
    sleep(_COUNTED_AFTER_S)
    url = sqlalchemy.make_url(required(place.settings.database.url, "database.url").get_secret_value())
    conninfo = url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(conninfo, autocommit=True) as connection:
        row = connection.execute(
            "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"
        ).fetchone()
    broker = redis.Redis.from_url(required(place.settings.queue.url, "queue.url").get_secret_value())
    commands = int(broker.info("stats")["total_commands_processed"])
    broker.close()
    return _Counts(
        servers_cpu_s=cpu,
        workers_cpu_s=workers_cpu_s,
        transactions=int(row[0]) if row else 0,
        commands=commands,
    )


def show(runs: Sequence[Run], *, sleep_s: float, console: Console) -> None:
    """Print speed and cost of every run."""
    servers = list(runs[0].servers_cpu_ms)
    table = Table(title=f"One job, {runs[0].images} images, {sleep_s * 1000:.0f} ms for a batch of {BATCH_SIZE}")
    for column in (
        "workers",
        "img/s",
        "of linear",
        *(f"{name} ms" for name in servers),
        "worker ms",
        "commits",
        "commands",
    ):
        table.add_column(column, justify="right")
    shares = share_of_linear([run.images_per_s for run in runs], [run.workers for run in runs])
    for run, share in zip(runs, shares, strict=True):
        table.add_row(
            str(run.workers),
            f"{run.images_per_s:.1f}",
            f"{share:.2f}",
            *(f"{run.servers_cpu_ms[name]:.2f}" for name in servers),
            f"{run.workers_cpu_ms:.2f}",
            f"{run.transactions:.2f}",
            f"{run.commands:.2f}",
        )
    console.print(table)
    console.print("Every figure from the fourth column on is for an image; milliseconds are of CPU time.")
    console.print(f"Goal: at least {GOAL_SHARE} of linear; {met(min(shares) >= GOAL_SHARE)}.")


def make_parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4], help="processes in each run")
    parser.add_argument("--images", type=int, default=1280, help="in the job")
    parser.add_argument("--sleep-ms", type=float, default=400, help="that every model call takes")
    add_out_option(parser)
    return parser


def main() -> None:
    """Measure every number of workers, print the table, write the raw figures."""
    arguments = make_parser().parse_args()
    configure_logs(level="warning", form="console", service="bench")
    console = Console(width=140)
    sleep_s = arguments.sleep_ms / 1000
    with scratch_directory() as scratch:
        stack = EmbeddedStack(scratch / "data")
        with stack as connections:
            storage = open_s3(s3_config(make_place(connections, scratch=scratch).settings))
            pictures = draw_turned(min(_PICTURES, arguments.images), side_px=_SIDE_PX, seed=1)
            files = [numbered(pictures[number % len(pictures)], number) for number in range(arguments.images)]
            keys = store_images(files, storage=storage, prefix="bench/scaling")
            runs = [
                measure(
                    workers=workers,
                    keys=keys,
                    sleep_s=sleep_s,
                    stack=stack,
                    connections=connections,
                    scratch=scratch / f"{number}-{workers}",
                )
                for number, workers in enumerate(arguments.workers)
            ]
    show(runs, sleep_s=sleep_s, console=console)
    facts = machine_facts("celery", "sqlalchemy", "onnxruntime-gpu")
    console.print(facts)
    write_figures(arguments.out, machine=facts, sleep_s=sleep_s, runs=[asdict(run) for run in runs])


if __name__ == "__main__":
    main()
