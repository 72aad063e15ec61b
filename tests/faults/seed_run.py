"""One seed: a fleet under load while everything breaks, the same jobs again without faults, and the two compared."""

from __future__ import annotations

import dataclasses
import secrets
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles

from sqlalchemy import func, select, text

from benchmarks.place import Place
from defectoscope.connect import open_database, s3_config
from defectoscope.database import Database, Job
from defectoscope.errors.installation import DatabaseUnavailable
from defectoscope.registry import VariantFile, find_champion, promote, publish
from defectoscope.storage import Storage, open_s3
from tests.faults.chaos import Chaos, Hit
from tests.faults.checker import Verdict, judge, read_outcomes
from tests.faults.faults import Fault, Part
from tests.faults.fleet import SECTIONS, Fleet, Held
from tests.faults.servers import Servers, new_place
from tests.faults.submitter import Accepted, Load, Submitter
from tests.faults.telling import ANSWERS, Telling, judge_telling, read_ended, register, settings_for
from tests.faults.workload import Workload
from tests.models import CONTRACT, write_dark_is_defect
from tests.receivers import Receiver, receiving

_REST_WITHIN_S = 240.0
#: Enough to keep two workers busy; more would measure how long chunks wait for their turn.
_MOST_OWED = 100
#: Two versions whose masks differ.
_CONTRACTS = (CONTRACT, dataclasses.replace(CONTRACT, input_size_wh=(128, 128)))

_ENDED_AT = text("""
    SELECT max(chunks.finished_at), bool_and(job_items.state <> 'pending') FROM job_items
    JOIN chunks ON chunks.id = job_items.chunk_id WHERE job_items.id = ANY(:items)
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one seed came to.

    Attributes:
        seed: decides images, jobs and faults.
        hits: the faults, in order.
        verdict: of the run with faults.
        recoveries_s: for each chunk that a killed worker held, by part of the schedule: seconds from the kill until all
            of its images ended.
        seconds: of the run with faults, from its first job to its last.
        clean_seconds: of the same jobs without faults.
        refusals: what the submitter was answered instead of yes.
        telling: what came of telling a webhook of the jobs that ended.
    """

    seed: int
    hits: Sequence[Hit]
    verdict: Verdict
    recoveries_s: Mapping[Part, Sequence[float]]
    seconds: float
    clean_seconds: float
    jobs: int
    refusals: Mapping[str, int]
    telling: Telling

    @property
    def kills(self) -> int:
        return sum(hit.is_kill for hit in self.hits)


def run_seed(
    seed: int, faults: Sequence[Fault], *, servers: Servers, scratch: Path, workers: int = 2, beats: int = 2
) -> Outcome:
    """Run jobs under faults, run them again without, and compare; what has ended is told to a webhook."""
    with receiving() as receiver:
        return _run_told(seed, faults, receiver, servers=servers, scratch=scratch, workers=workers, beats=beats)


def _run_told(
    seed: int,
    faults: Sequence[Fault],
    receiver: Receiver,
    *,
    servers: Servers,
    scratch: Path,
    workers: int,
    beats: int,
) -> Outcome:
    receiver.answers = ANSWERS * 1000
    workload = Workload.draw(seed)
    place, storage = _prepare(workload, servers=servers, scratch=scratch, webhooks=settings_for(receiver))
    fleet = Fleet(place, directory=scratch / f"seed-{seed}", workers=workers, beats=beats)
    submitter = Submitter(fleet.url, headers=fleet.headers)
    with fleet:
        secret = register(fleet.database, receiver)
        load = Load(
            submitter,
            lambda number: workload.job(number, bucket=place.settings.storage.bucket),
            count_owed=lambda: _count_owed(fleet.database),
            most_owed=_MOST_OWED,
        )
        chaos = Chaos(servers, fleet, lambda: _switch_model(fleet.database), seed)
        load.start()
        try:
            chaos.run(faults)
        finally:
            accepted = load.end()
        servers.wait_until_back()
        wait_until_at_rest(fleet.database, jobs=len(accepted))
        telling = judge_telling(read_ended(fleet.database), receiver.requests, secret=secret)
        seconds = _working_seconds(fleet.database)
        held = {part: [hit.held for hit in chaos.hits if hit.part is part] for part in Part}
        recoveries_s = {part: measure_recoveries(fleet.database, found) for part, found in held.items()}
    expected, clean_seconds = _run_clean(workload, accepted, servers=servers, scratch=scratch, workers=workers)
    database = open_database(place.settings)
    verdict = judge(
        database, storage, owed=[(job.spec.key, name) for job in accepted for name in job.spec.names], expected=expected
    )
    database.close()
    return Outcome(
        seed=seed,
        hits=chaos.hits,
        verdict=verdict,
        recoveries_s=recoveries_s,
        seconds=seconds,
        clean_seconds=clean_seconds,
        jobs=len(accepted),
        refusals=dict(submitter.refusals),
        telling=telling,
    )


def wait_until_at_rest(database: Database, *, jobs: int, within_s: float = _REST_WITHIN_S) -> None:
    """Wait until so many jobs are known and every one has ended. Nobody helps."""
    deadline = time.monotonic() + within_s
    while True:
        try:
            with database.transaction() as session:
                states = Counter(session.scalars(select(Job.state)).all())
        except DatabaseUnavailable:
            states = Counter()
        if states.total() >= jobs and all(state.is_final for state in states):
            return
        # What is not at rest by now the checker will name; a run must come to an end.
        if time.monotonic() > deadline:
            return
        time.sleep(0.2)


def measure_recoveries(database: Database, held: Sequence[Held | None]) -> list[float]:
    """Return the seconds from each kill until the last image of each chunk held then had ended, in whatever chunk."""
    found = []
    for kill in filter(None, held):
        for items in kill.images.values():
            with database.transaction() as session:
                ended_at, is_over = session.execute(_ENDED_AT, {"items": list(items)}).one()
            found.append(ended_at.timestamp() - kill.at if is_over else float("inf"))
    return found


def percentile(values: Sequence[float], percent: int) -> float | None:
    if len(values) < 2:
        return values[0] if values else None
    if float("inf") in values:
        return float("inf")
    return quantiles(values, n=100, method="inclusive")[percent - 1]


def _prepare(
    workload: Workload, *, servers: Servers, scratch: Path, webhooks: Mapping[str, object] | None = None
) -> tuple[Place, Storage]:
    place = new_place(
        servers,
        scratch=scratch,
        bucket=f"faults-{secrets.token_hex(4)}",
        sections={name: dict(values) for name, values in {**SECTIONS, "webhooks": webhooks or {}}.items()},
    )
    storage = open_s3(s3_config(place.settings))
    workload.store(storage)
    with _opened(place) as database:
        publish_versions(database, storage, scratch=scratch)
    return place, storage


def publish_versions(database: Database, storage: Storage, *, scratch: Path) -> None:
    """Publish two versions whose masks differ and put the first in service."""
    for contract in _CONTRACTS:
        _publish(database, storage, contract, scratch=scratch)
    promote(database=database, number=1, actor="faults", reason="the first", figures={})


def _publish(database: Database, storage: Storage, contract: object, *, scratch: Path) -> None:
    publish(
        database=database,
        storage=storage,
        contract=contract,
        build=lambda numbered: [
            VariantFile(
                precision="fp32", path=write_dark_is_defect(scratch / "dark.onnx", numbered), parity={"images": 0}
            )
        ],
        training_run_id=None,
        dataset_revision_id=None,
    )


def _run_clean(
    workload: Workload, accepted: Sequence[Accepted], *, servers: Servers, scratch: Path, workers: int
) -> tuple[dict, float]:
    """Run the same jobs, each on the version that it was accepted with, and return what came of every image."""
    place, _ = _prepare(workload, servers=servers, scratch=scratch)
    with Fleet(place, directory=scratch / f"clean-{workload.seed}", workers=workers) as fleet:
        submitter = Submitter(fleet.url, headers=fleet.headers)
        for number, job in enumerate(accepted):
            spec = workload.job(number, bucket=place.settings.storage.bucket)
            submitter.submit(spec, model_version=job.model_version)
        wait_until_at_rest(fleet.database, jobs=len(accepted))
        return read_outcomes(fleet.database), _working_seconds(fleet.database)


def _switch_model(database: Database) -> None:
    with database.transaction() as session:
        number = find_champion(session).number
    promote(database=database, number=3 - number, actor="faults", reason="the other one", figures={})


def _count_owed(database: Database) -> int | None:
    try:
        with database.transaction() as session:
            return session.scalars(select(func.coalesce(func.sum(Job.pending_images), 0))).one()
    except DatabaseUnavailable:
        return None


def _working_seconds(database: Database) -> float:
    with database.transaction() as session:
        began_at, ended_at = session.execute(select(func.min(Job.created_at), func.max(Job.finished_at))).one()
    return (ended_at - began_at).total_seconds() if ended_at else float("inf")


@contextmanager
def _opened(place: Place):
    database = open_database(place.settings)
    try:
        yield database
    finally:
        database.close()
