"""The same images with plain Celery on the same servers under the same kills: how many are lost, how many doubled."""

from __future__ import annotations

import os
import secrets
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread
from types import TracebackType
from typing import Self

import psycopg
import redis
import sqlalchemy
from celery import Celery
from kombu.exceptions import OperationalError

from benchmarks.peers.steps import Work
from benchmarks.place import Place
from defectoscope.connect import s3_config
from defectoscope.embedded.server import Server
from defectoscope.embedded.supervisor import Supervisor
from defectoscope.storage import open_s3
from tests.faults.chaos import Chaos
from tests.faults.faults import WORKER, Act, draw_schedule
from tests.faults.fleet import LEASE_S, SECTIONS, Held
from tests.faults.servers import BROKER, DATABASE, QUICK, Servers, new_place, signal_child
from tests.faults.workload import Workload
from tests.models import CONTRACT, write_dark_is_defect

#: Long for a task of milliseconds, short for a run of minutes; the default of an hour would leave more undone.
VISIBILITY_TIMEOUT_S = 20
_MOST_OWED = 300
_FLUSHED = 1000
_QUIET_S = 2.0 * VISIBILITY_TIMEOUT_S
_REST_WITHIN_S = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainOutcome:
    """What plain Celery came to.

    Attributes:
        kills: SIGKILLs of workers, broker and database.
        sent: images whose message the broker took.
        lost: of them, those without a row long after everything was quiet.
        doubled: rows beyond the first of an image.
        owed_at_flush: images sent and not done when the broker was flushed, in a second part without kills.
        lost_at_flush: of those, images without a row.
    """

    kills: int
    sent: int
    lost: int
    doubled: int
    owed_at_flush: int
    lost_at_flush: int


def tell_plain(outcome: PlainOutcome) -> str:
    return (
        f"plain Celery (acks_late, reject_on_worker_lost, visibility timeout {VISIBILITY_TIMEOUT_S} s), "
        f"{outcome.kills} SIGKILLs of workers, broker and database: sent {outcome.sent}, lost {outcome.lost}, "
        f"doubled {outcome.doubled}; broker flushed with {outcome.owed_at_flush} owed: lost {outcome.lost_at_flush}"
    )


class PlainFleet:
    """Workers of plain Celery, to be hit as our own are."""

    beats: tuple[str, ...] = ()

    def __init__(self, place: Place, *, scratch: Path, keys: Sequence[str], workers: int) -> None:
        self.place = place
        self.workers = tuple(f"plain-{number}" for number in range(1, workers + 1))
        self.supervisor = Supervisor(scratch / "plain-logs", backoff=QUICK)
        self.prefix = f"plain-{secrets.token_hex(4)}:"
        settings = place.settings.storage
        model = write_dark_is_defect(scratch / "plain.onnx", CONTRACT)
        work = Work(
            endpoint_url=place.environment["DEFECTOSCOPE_STORAGE__ENDPOINT_URL"],
            region=settings.region,
            bucket=settings.bucket,
            keys=tuple(keys),
            warm_up_keys=(),
            mask_prefix="plain",
            model=str(model),
            weights="",
            encoder="",
            size_wh=(256, 256),
            threshold=0.5,
            batch_size=1,
            threads=1,
            session_entries={},
        )
        url = sqlalchemy.make_url(place.environment["DEFECTOSCOPE_DATABASE__URL"])
        self._environment = {
            **os.environ,
            "PLAIN_WORK": work.to_json(),
            "PLAIN_BROKER_URL": place.environment["DEFECTOSCOPE_QUEUE__URL"],
            "PLAIN_DATABASE_URL": url.set(drivername="postgresql").render_as_string(hide_password=False),
            "PLAIN_KEY_PREFIX": self.prefix,
            "PLAIN_VISIBILITY_TIMEOUT_S": str(VISIBILITY_TIMEOUT_S),
            "AWS_ACCESS_KEY_ID": place.environment["DEFECTOSCOPE_STORAGE__ACCESS_KEY"],
            "AWS_SECRET_ACCESS_KEY": place.environment["DEFECTOSCOPE_STORAGE__SECRET_KEY"],
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "PYTHONUNBUFFERED": "1",
            "PYTHONWARNINGS": "ignore:You're running the worker with superuser",
        }
        self._directory = scratch

    def __enter__(self) -> Self:
        command = (sys.executable, "-m", "celery", "--quiet", "-A", "tests.faults.plain_tasks", "worker")
        options = ("--concurrency", "2", "--loglevel", "warning", "--without-mingle", "--without-gossip")
        self.supervisor.start_all(
            [
                Server(
                    name=name,
                    argv=(*command, *options, "-n", f"{name}@%h"),
                    env=self._environment,
                    cwd=self._directory,
                )
                for name in self.workers
            ]
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.supervisor.stop(timeout_s=20)

    def signal(self, name: str, number: signal.Signals) -> None:
        signal_child(self.supervisor, name, number)

    def busy_worker(self, candidates: Sequence[str]) -> tuple[str, Held | None]:
        """Any worker: under load all of them are busy, and Celery does not say with what."""
        return candidates[0], None


@dataclass(slots=True)
class _Sender:
    """Sends images until enough are done, each again until the broker has taken it."""

    app: Celery
    keys: Sequence[str]
    sent: list[str] = field(default_factory=list)

    def send(self) -> None:
        name = f"{self.keys[len(self.sent) % len(self.keys)]}#{len(self.sent)}"
        while True:
            try:
                self.app.send_task("inspect", args=(name,), queue="celery", retry=False)
            except (OperationalError, OSError):
                time.sleep(0.2)
            else:
                self.sent.append(name)
                return


def run_plain(seeds: Sequence[int], *, servers: Servers, scratch: Path, workers: int = 2) -> PlainOutcome:
    """Keep plain Celery busy through the kills of some seeds, wait until nothing comes any more, and count."""
    place = new_place(
        servers,
        scratch=scratch,
        bucket=f"plain-{secrets.token_hex(4)}",
        sections={name: dict(values) for name, values in SECTIONS.items()},
    )
    workload = Workload.draw(0)
    workload.store(open_s3(s3_config(place.settings)))
    keys = [f"in/{name}" for name in workload.images if name.startswith("part-")]
    fleet = PlainFleet(place, scratch=scratch, keys=keys, workers=workers)
    rows = _Rows(place)
    app = Celery("sender", broker=servers.connections.queue_url, set_as_current=False)
    app.conf.update(broker_transport_options={"global_keyprefix": fleet.prefix, "socket_timeout": 5})
    sender = _Sender(app, keys)
    faults = [
        fault
        for seed in seeds
        for fault in draw_schedule(seed, lease_s=LEASE_S)
        if fault.act is Act.KILL and fault.target in {WORKER, BROKER, DATABASE}
    ]
    with fleet:
        for _ in range(50):
            sender.send()
        rows.wait_for(50)
        chaos = Chaos(servers, fleet, lambda: None, seeds[0])
        enough = Event()
        load = Thread(target=_keep_busy, args=(sender, rows, enough), name="plain load")
        load.start()
        try:
            chaos.run(faults)
        finally:
            enough.set()
            load.join()
        servers.wait_until_back()
        rows.wait_until_quiet()
        names = rows.read()
        sent = list(sender.sent)
        for _ in range(_FLUSHED):
            sender.send()
        done_at_flush = rows.count() - len(names)
        with redis.Redis.from_url(servers.connections.queue_url) as client:
            client.flushall()
        rows.wait_until_quiet()
        after = set(rows.read())
    app.close()
    flushed = sender.sent[len(sent) :]
    return PlainOutcome(
        kills=len(chaos.hits),
        sent=len(sent),
        lost=len(set(sent) - set(names)),
        doubled=len(names) - len(set(names)),
        owed_at_flush=len(flushed) - done_at_flush,
        lost_at_flush=len(set(flushed) - after),
    )


def _keep_busy(sender: _Sender, rows: _Rows, enough: Event) -> None:
    while not enough.is_set():
        if len(sender.sent) - (rows.count() or 0) < _MOST_OWED:
            sender.send()
        else:
            enough.wait(0.1)


class _Rows:
    """The table that the tasks write to."""

    def __init__(self, place: Place) -> None:
        url = place.settings.database.url
        assert url is not None
        self._conninfo = (
            sqlalchemy.make_url(url.get_secret_value())
            .set(drivername="postgresql")
            .render_as_string(hide_password=False)
        )
        with psycopg.connect(self._conninfo) as connection:
            connection.execute("CREATE TABLE plain_results (name text, mask_sha256 text)")

    def count(self) -> int:
        """Return how many rows there are; the last answer while the database is away."""
        try:
            with psycopg.connect(self._conninfo, connect_timeout=2) as connection:
                row = connection.execute("SELECT count(DISTINCT name) FROM plain_results").fetchone()
        except psycopg.OperationalError:
            return self._counted
        assert row is not None
        self._counted = int(row[0])
        return self._counted

    def read(self) -> list[str]:
        with psycopg.connect(self._conninfo) as connection:
            return [name for (name,) in connection.execute("SELECT name FROM plain_results")]

    def wait_for(self, count: int) -> None:
        deadline = time.monotonic() + _REST_WITHIN_S
        while self.count() < count:
            assert time.monotonic() < deadline, f"{self.count()} rows of {count}"
            time.sleep(0.1)

    def wait_until_quiet(self) -> None:
        """Wait until no row has come for so long that no message is left to be delivered again."""
        deadline = time.monotonic() + _REST_WITHIN_S
        count, since = self.count(), time.monotonic()
        while time.monotonic() - since < _QUIET_S and time.monotonic() < deadline:
            time.sleep(0.5)
            if (now := self.count()) != count:
                count, since = now, time.monotonic()

    _counted: int = 0
