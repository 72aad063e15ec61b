"""`python -m benchmarks.enumeration`: how fast a worker writes the items of a job, from a prefix and from a manifest.

The objects of the prefix are stored first, one byte each; the manifest names images that are not there, which nobody
notices before they are fetched. Listing and writing run as in a worker, in this process, with PostgreSQL and SeaweedFS
beside it. Resident memory is looked at while they do.
"""

from __future__ import annotations

import argparse
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from threading import Event, Thread
from time import perf_counter

from rich.console import Console
from rich.table import Table

from benchmarks.models import costless_model, put_in_service
from benchmarks.output import add_out_option, met, write_figures
from benchmarks.place import Place, job_params, make_place, scratch_directory
from benchmarks.processes import machine_facts, memory
from defectoscope.connect import open_database, s3_config
from defectoscope.database import Job
from defectoscope.embedded.stack import EmbeddedStack
from defectoscope.inspection.sources import Manifest, Prefix
from defectoscope.inspection.submission import JobRequest, submit_job
from defectoscope.logs import configure_logs
from defectoscope.queue import MemoryQueue
from defectoscope.storage import S3Uri, Storage, open_s3
from worker.inspector import Inspector

#: What is good enough, items a second.
GOAL_PER_S = 10_000
_PREFIX = "bench/enumeration"
_MANIFEST_KEY = "bench/manifest.csv"
_PUTS_AT_ONCE = 16
_LOOK_S = 0.05
_MB = 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Enumeration:
    """Of one job: how many items were written, in what time, and by how much the process grew meanwhile."""

    source: str
    items: int
    seconds: float
    grown_mb: float

    @property
    def items_per_s(self) -> float:
        """Speed."""
        return self.items / self.seconds


def measure(place: Place, *, source: Prefix | Manifest, items: int, version_id: int) -> Enumeration:
    """Submit a job and write its items.

    Args:
        place: with the objects in its bucket.
        source: that has as many images.
        items: images.
        version_id: row id of a model version.
    """
    database = open_database(place.settings)
    inspector = Inspector(place.settings)
    request = JobRequest(source=source, params=job_params(threshold=0.5), model_version_id=version_id)
    chunk_size = place.settings.inspection.chunk_size
    job_id = submit_job(database=database, queue=MemoryQueue(), request=request, chunk_size=chunk_size)
    before, most = memory(os.getpid()).largest, 0
    ended = Event()

    def look() -> None:
        nonlocal most
        while not ended.wait(_LOOK_S):
            most = max(most, memory(os.getpid()).largest)

    looking = Thread(target=look)
    looking.start()
    began_at = perf_counter()
    inspector.enumerate_job(job_id)
    seconds = perf_counter() - began_at
    ended.set()
    looking.join()
    with database.transaction() as session:
        written = session.get_one(Job, job_id)
        if written.enumerated_at is None or written.pending_images != items:
            raise RuntimeError(f"{written.pending_images} of {items} items were written.")
    inspector.close()
    database.close()
    return Enumeration(
        source=type(source).__name__.lower(), items=items, seconds=seconds, grown_mb=max(0, most - before) / _MB
    )


def store_objects(storage: Storage, *, count: int) -> None:
    """Store so many objects of one byte below the prefix."""

    def put(number: int) -> None:
        storage.put(f"{_PREFIX}/part-{number:07}.jpg", b"1", content_type="image/jpeg")

    with ThreadPoolExecutor(_PUTS_AT_ONCE) as puts:
        list(puts.map(put, range(count)))


def store_manifest(storage: Storage, *, bucket: str, count: int) -> None:
    """Store a manifest of so many images."""
    lines = (
        f"{S3Uri(bucket, f'{_PREFIX}/part-{number:07}.jpg')},line-3/part-{number:07}.jpg" for number in range(count)
    )
    storage.put(_MANIFEST_KEY, "\n".join(["uri,name", *lines]).encode(), content_type="text/csv")


def show(measured: list[Enumeration], *, console: Console) -> None:
    """Print speed and memory."""
    table = Table("source", "items", "items/s", "grown by MB")
    for one in measured:
        table.add_row(one.source, str(one.items), f"{one.items_per_s:.0f}", f"{one.grown_mb:.0f}")
    console.print(table)
    slowest = min(one.items_per_s for one in measured)
    console.print(f"Goal: {GOAL_PER_S} items a second; {met(slowest >= GOAL_PER_S)}.")


def make_parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.enumeration")
    parser.add_argument("--objects", type=int, default=50_000, help="below the prefix")
    parser.add_argument("--lines", type=int, default=500_000, help="of the manifest")
    parser.add_argument("--repeats", type=int, default=3, help="jobs of each kind")
    add_out_option(parser)
    return parser


def main() -> None:
    """Measure both, print the table, write the raw figures."""
    arguments = make_parser().parse_args()
    configure_logs(level="warning", form="console", service="bench")
    console = Console(width=120)
    with scratch_directory() as scratch, EmbeddedStack(scratch / "data") as connections:
        place = make_place(connections, scratch=scratch)
        storage, bucket = open_s3(s3_config(place.settings)), place.settings.storage.bucket
        store_objects(storage, count=arguments.objects)
        store_manifest(storage, bucket=bucket, count=arguments.lines)
        database = open_database(place.settings)
        version_id = put_in_service(costless_model(scratch / "model.onnx"), database=database, storage=storage)
        database.close()
        prefix = Prefix(uri=str(S3Uri(bucket, _PREFIX)), labels_uri=None)
        manifest = Manifest(uri=str(S3Uri(bucket, _MANIFEST_KEY)))
        measured = [
            measure(place, source=source, items=items, version_id=version_id)
            for _ in range(arguments.repeats)
            for source, items in ((prefix, arguments.objects), (manifest, arguments.lines))
        ]
    show(measured, console=console)
    facts = machine_facts("sqlalchemy", "obstore")
    console.print(facts)
    write_figures(arguments.out, machine=facts, enumerations=[asdict(one) for one in measured])


if __name__ == "__main__":
    main()
