"""The disk of each server, and that of a worker, is full while a job runs. Nothing is lost, and nobody helps."""

from __future__ import annotations

import dataclasses
import io
import secrets
import signal
import time
import zipfile
from contextlib import ExitStack
from threading import Thread

import httpx
import numpy as np
import pytest
from sqlalchemy import text

from defectoscope.connect import s3_config
from defectoscope.embedded.stack import EmbeddedStack
from defectoscope.segmentation import decode_mask
from defectoscope.settings import ENVIRONMENT_PREFIX
from defectoscope.storage import open_s3
from tests.faults.checker import find_flaws, find_missing_masks
from tests.faults.fleet import SECTIONS, Fleet
from tests.faults.seed_run import publish_versions, wait_until_at_rest
from tests.faults.servers import BROKER, DATABASE, STORAGE, new_place, running_servers
from tests.faults.small_disk import small_disk
from tests.faults.submitter import Submitter
from tests.faults.workload import JobSpec
from tests.images import draw_part, encode
from tests.models import expect_mask

PARTS = {f"part-{seed:02}.png": draw_part(height=256, width=256, seed=seed)[0] for seed in range(64)}
FILES = {name: encode(pixels, "PNG", compress_level=1) for name, pixels in PARTS.items()}
# Servers and processes are started for the first test, on a machine that may have much else to do.
pytestmark = pytest.mark.timeout(400)

#: More than one worker process would only make the module start later.
WORKER = "worker-1"
SEEN_WITHIN_S = 60.0
#: How long a disk stays full once somebody has noticed: a few attempts more.
STAYS_FULL_S = 2.0
#: PostgreSQL writes into pages that it has for as long as there are any: some jobs may find room on a full disk.
MOST_JOBS = 20


@pytest.fixture(scope="module")
def disks(make_data_dir):
    """Every server, and the scratch of the other processes, on a small file system of its own."""
    directory = make_data_dir()
    directory.chmod(0o711)
    with EmbeddedStack(directory / "servers"):
        # What is moved to a small disk must be there.
        pass
    (directory / "scratch").mkdir()
    sizes_mib = {"servers/postgresql": 256, "servers/seaweedfs": 128, "servers/valkey": 16, "scratch": 16}
    with ExitStack() as stack:
        yield {
            path.rpartition("/")[2]: stack.enter_context(small_disk(directory / path, size_mib=size_mib))
            for path, size_mib in sizes_mib.items()
        }


@pytest.fixture(scope="module")
def servers(disks):
    with running_servers(disks[STORAGE].directory.parent) as servers:
        yield servers


@pytest.fixture(scope="module")
def fleet(servers, disks, make_data_dir):
    """API, worker, trainer and beat, whose temporary files and models go to the small disk."""
    scratch = make_data_dir()
    place = new_place(
        servers,
        scratch=scratch,
        bucket=f"disks-{secrets.token_hex(4)}",
        sections={name: dict(values) for name, values in SECTIONS.items()},
    )
    small = str(disks["scratch"].directory)
    place = dataclasses.replace(
        place,
        environment={
            **place.environment,
            "TMPDIR": small,
            f"{ENVIRONMENT_PREFIX}WORKER__MODEL_CACHE_DIR": f"{small}/models",
        },
    )
    fleet = Fleet(place, directory=scratch / "fleet", workers=1)
    storage = open_s3(s3_config(place.settings))
    publish_versions(fleet.database, storage, scratch=scratch)
    for name, data in FILES.items():
        storage.put(f"in/{name}", data, content_type="image/png")
    with fleet:
        yield fleet


@dataclasses.dataclass
class Site:
    """A fleet at work: jobs in, log lines and masks out. Each job has a threshold, and so masks, of its own."""

    fleet: Fleet
    thresholds: dict[str, float] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        self.submitter = Submitter(self.fleet.url, headers=self.fleet.headers)
        self.storage = open_s3(s3_config(self.fleet.place.settings))
        self._read = {}

    def spec(self, key, **source):
        with self.fleet.database.transaction() as session:
            taken = session.execute(text("SELECT count(*) FROM jobs")).scalar_one()
        self.thresholds[key] = round(0.3 + 0.01 * (taken + len(self.thresholds)), 4)
        bucket = self.fleet.place.settings.storage.bucket
        images = [{"name": name, "uri": f"s3://{bucket}/in/{name}"} for name in PARTS]
        return JobSpec(
            key=key,
            source=source or {"kind": "images", "images": images},
            options={"threshold": self.thresholds[key], "min_area_px": 1, "overlays": "none"},
            names=tuple(PARTS),
        )

    def wait_for_line(self, name, *words):
        """Wait until a process has written a line with these words since the last time it was asked for one."""
        log = self.fleet.supervisor._log_dir / f"{name}.log"
        deadline = time.monotonic() + SEEN_WITHIN_S
        while True:
            lines = log.read_text().splitlines()
            for number in range(self._read.get(name, 0), len(lines)):
                if all(word in lines[number] for word in words):
                    self._read[name] = number + 1
                    return
            assert time.monotonic() < deadline, f"{name} has not written {words}:\n" + "\n".join(lines[-20:])
            time.sleep(0.1)

    def wait_for_refusal(self, name):
        """Wait until the API has answered a submission so."""
        deadline = time.monotonic() + SEEN_WITHIN_S
        while not self.submitter.refusals[name]:
            assert time.monotonic() < deadline, self.submitter.refusals
            time.sleep(0.1)

    def see_that_all_is_well(self, *keys):
        """Every image of these jobs has the mask that it must have, and nothing is where it must not be."""
        with self.fleet.database.transaction() as session:
            jobs = session.execute(text("SELECT count(*) FROM jobs")).scalar_one()
        wait_until_at_rest(self.fleet.database, jobs=jobs, within_s=150)
        assert find_flaws(self.fleet.database) == {}
        assert find_missing_masks(self.fleet.database, self.storage) == set()
        for key in keys:
            with self.fleet.database.transaction() as session:
                rows = session.execute(
                    text(
                        "SELECT job_items.name, job_items.error_code, results.mask_key FROM job_items"
                        " JOIN jobs ON jobs.id = job_id LEFT JOIN results ON results.id = result_id"
                        " WHERE idempotency_key = :key"
                    ),
                    {"key": key},
                ).all()
            assert [(name, code) for name, code, _ in rows if code is not None] == []
            assert {name for name, _, _ in rows} == set(PARTS)
            for name, _, mask_key in rows:
                mask = decode_mask(self.storage.get(mask_key))
                assert np.array_equal(mask, expect_mask(PARTS[name], threshold=self.thresholds[key])), (key, name)


@pytest.fixture
def site(fleet):
    return Site(fleet)


def test_a_job_waits_until_the_object_storage_has_room(site, disks):
    with disks[STORAGE].full():
        site.submitter.submit(site.spec("storage"))
        site.wait_for_line(WORKER, "chunk.postponed", "storage_unavailable", "status 500")
        time.sleep(STAYS_FULL_S)

    site.see_that_all_is_well("storage")


def test_jobs_wait_until_the_database_has_room_though_it_was_killed_meanwhile(site, disks, servers):
    specs = [site.spec(f"database-{number}") for number in range(MOST_JOBS)]
    sent = []

    def send():
        for spec in specs:
            sent.append(spec.key)
            site.submitter.submit(spec)
            if site.submitter.refusals:
                return

    sending = Thread(target=send)
    with disks[DATABASE].full():
        sending.start()
        site.wait_for_refusal("503 database_unavailable")
        servers.signal(DATABASE, signal.SIGKILL)
        time.sleep(STAYS_FULL_S)
    sending.join()

    assert site.submitter.refusals.keys() <= {"503 database_unavailable", "ReadTimeout"}
    site.see_that_all_is_well(*sent)


def test_a_job_waits_until_the_broker_has_room(site, disks):
    with disks[BROKER].full():
        site.submitter.submit(site.spec("broker"))
        site.wait_for_line(WORKER, "consumer", "No space left on device")
        readiness = httpx.get(f"{site.fleet.url}/readyz", trust_env=False, timeout=30)
        time.sleep(STAYS_FULL_S)

    assert readiness.status_code == 503
    assert "No space left on device" in readiness.json()["checks"]["queue"]
    site.see_that_all_is_well("broker")


def test_a_job_waits_until_all_of_them_have_room_as_on_a_machine_with_one_disk(site, disks):
    site.submitter.submit(site.spec("all"))

    with ExitStack() as stack:
        for disk in disks.values():
            stack.enter_context(disk.full())
        # Which of the servers is missed first is a matter of luck; each says it in these words.
        site.wait_for_line(WORKER, "No space left on device")
        time.sleep(STAYS_FULL_S)

    site.see_that_all_is_well("all")


def test_a_job_waits_until_a_worker_has_room_for_its_archive_and_its_model(site, fleet, disks):
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        for name, data in FILES.items():
            file.writestr(name, data)
    site.storage.put("parts.zip", archive.getvalue(), content_type="application/zip")
    zipped = {"kind": "archive", "uri": f"s3://{fleet.place.settings.storage.bucket}/parts.zip"}
    # Where temporary files go is decided with the first of them: it must not be decided by a full disk.
    site.submitter.submit(site.spec("before", **zipped))
    assert _upload(fleet, seed=1).status_code == 201
    site.see_that_all_is_well("before")

    with disks["scratch"].full():
        site.submitter.submit(site.spec("archive", **zipped))
        site.wait_for_line(WORKER, "enumeration.postponed", "disk_full")
        site.submitter.submit(site.spec("model"), model_version=2)
        site.wait_for_line(WORKER, "chunk.postponed", "disk_full")
        refused = _upload(fleet, seed=2)

    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "disk_full")
    site.see_that_all_is_well("archive")
    with fleet.database.transaction() as session:
        ends = session.execute(text("SELECT DISTINCT state FROM jobs")).scalars().all()
    assert ends == ["succeeded"]
    assert _upload(fleet, seed=2).status_code == 201


def _upload(fleet, *, seed):
    """Upload a picture that is too large to be received in memory."""
    noise = np.random.default_rng(seed).integers(0, 255, (900, 900, 3), dtype=np.uint8)
    files = {"file": ("noise.png", encode(noise, "PNG", compress_level=1))}
    return httpx.post(f"{fleet.url}/v1/images", files=files, headers=fleet.headers, trust_env=False, timeout=30)
