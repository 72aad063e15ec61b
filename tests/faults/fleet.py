"""The processes that `defectoscope up` starts, with as many workers and beats as wanted, under a supervisor."""

from __future__ import annotations

import dataclasses
import os
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil
from sqlalchemy import text

from benchmarks.jobs import wait_until_warm
from benchmarks.place import Place
from defectoscope.cli import up
from defectoscope.connect import open_database
from defectoscope.database import Database
from defectoscope.embedded.server import Server
from defectoscope.embedded.supervisor import Supervisor
from defectoscope.errors.installation import DatabaseUnavailable
from defectoscope.settings import required
from tests.faults.servers import QUICK, child_of_guardian, signal_child
from tests.tokens import bearer, make_token

_WARM_WITHIN_S = 120.0

#: Short times, so that a run of minutes sees many recoveries; everything else is the default.
LEASE_S = 5
SECTIONS: Mapping[str, Mapping[str, object]] = {
    "inspection": {"chunk_size": 8, "lease_s": LEASE_S, "reconcile_interval_s": 2, "resend_after_s": 6},
    "database": {"statement_timeout_s": 10},
    "worker": {
        "device": "cpu",
        "variant": "fp32",
        "intra_op_threads": 1,
        "io_threads": 2,
        "concurrency": 2,
        "retry_pause_s": 1,
        "champion_interval_s": 1,
    },
    "metrics": {"api_port": 0, "worker_port": 0, "trainer_port": 0},
    "log": {"level": "info", "format": "console"},
}

# What a process holds at this moment: its chunks, and the images in them that have not ended.
_HELD = text("""
    SELECT chunks.id, job_items.id FROM chunks JOIN job_items ON job_items.chunk_id = chunks.id
    WHERE chunks.state = 'running' AND chunks.lease_owner LIKE :owner AND job_items.state = 'pending'
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What a worker held when it was hit: images by chunk, and when."""

    at: float
    images: Mapping[int, tuple[int, ...]]


class Fleet:
    """API, workers, trainer and beats of one place."""

    def __init__(self, place: Place, *, directory: Path, workers: int = 2, beats: int = 1) -> None:
        self.place = place
        self.database = open_database(place.settings)
        self.workers = tuple(f"worker-{number}" for number in range(1, workers + 1))
        self.beats = tuple(f"beat-{number}" for number in range(1, beats + 1))
        self.supervisor = Supervisor(directory / "logs", backoff=QUICK)
        self._directory = directory
        port = _free_port()
        self.url = f"http://127.0.0.1:{port}"
        token = make_token(required(place.settings.database.url, "database.url").get_secret_value(), name="load")
        self.headers = bearer(token)
        self._environment = {
            **place.environment,
            "DEFECTOSCOPE_API__PORT": str(port),
            "DEFECTOSCOPE_API__URL": self.url,
            # Whatever runs on this machine besides is not for us.
            "DEFECTOSCOPE_CONNECTION_FILE": str(directory / "none.env"),
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        }

    def __enter__(self) -> Self:
        self._directory.mkdir(parents=True, exist_ok=True)
        self.supervisor.start_all(self._processes())
        try:
            wait_until_warm(self.database, workers=len(self.workers), within_s=_WARM_WITHIN_S)
        except RuntimeError:
            self.supervisor.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.supervisor.stop(timeout_s=20)
        self.database.close()

    def process(self, name: str) -> psutil.Process:
        """Return a process of ours that runs, waiting for its restart if need be."""
        return child_of_guardian(self.supervisor, name)

    def signal(self, name: str, number: signal.Signals) -> None:
        signal_child(self.supervisor, name, number)

    def busy_worker(self, candidates: Sequence[str], *, within_s: float = 10.0) -> tuple[str, Held | None]:
        """Return a worker that holds something, and what; after a while any worker, and what it holds if that shows."""
        deadline = time.monotonic() + within_s
        while True:
            for name in candidates:
                held = self.held_by(name)
                if held is not None and (held.images or time.monotonic() > deadline):
                    return name, held
            if time.monotonic() > deadline:
                return candidates[0], None
            time.sleep(0.02)

    def held_by(self, name: str) -> Held | None:
        """Return what a worker holds now; None while the database does not say."""
        process_id = self.process(name).pid
        try:
            return _read_held(self.database, process_id)
        except DatabaseUnavailable:
            return None

    def _processes(self) -> list[Server]:
        # The very commands of `up`: what is tested is what people run.
        made = {server.name: server for server in up._processes(self._environment, self._directory, self.url)}
        worker, beat = made.pop("worker"), made.pop("beat")
        workers = [
            dataclasses.replace(
                worker, name=name, argv=tuple(f"{name}@%h" if part == "worker@%h" else part for part in worker.argv)
            )
            for name in self.workers
        ]
        return [*made.values(), *workers, *(dataclasses.replace(beat, name=name) for name in self.beats)]


def _read_held(database: Database, process_id: int) -> Held:
    with database.transaction() as session:
        rows = session.execute(_HELD, {"owner": f"%:{process_id}"}).all()
    images: dict[int, list[int]] = {}
    for chunk_id, item_id in rows:
        images.setdefault(chunk_id, []).append(item_id)
    return Held(at=time.time(), images={chunk_id: tuple(items) for chunk_id, items in images.items()})


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
