"""Each guard of ownership is needed: without it, in a copy of the package, the state machine finds what goes wrong."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url

from defectoscope.database.migrate import upgrade

REPOSITORY = Path(__file__).parents[3]


@dataclass(frozen=True)
class Package:
    """A copy of the package, from which one thing can be taken."""

    directory: Path

    def take(self, path, guard, *, leaving=""):
        file = self.directory / "defectoscope" / "inspection" / path
        source = file.read_text()
        assert source.count(guard) == 1, f"the guard is not where it was: {guard}"
        file.write_text(source.replace(guard, leaving))

    def drive(self, url):
        """Run the machine, the same steps every time, on this copy."""
        return subprocess.run(
            [sys.executable, "-m", "tests.integration.ownership.machine", url, "60", "40"],
            cwd=self.directory,
            env=os.environ | {"PYTHONPATH": f"{self.directory}{os.pathsep}{REPOSITORY}"},
            capture_output=True,
            text=True,
            check=False,
            timeout=170,
        )


@pytest.fixture
def package(tmp_path):
    shutil.copytree(REPOSITORY / "defectoscope", tmp_path / "defectoscope")
    return Package(tmp_path)


@pytest.mark.parametrize(
    ("path", "guard", "leaving", "finding"),
    [
        pytest.param(
            "completion_sql.py",
            " AND lease_token = :token AND state = 'running' RETURNING",
            " AND lease_token = :token RETURNING",
            "a late holder wrote",
            id="the-state-of-a-completed-chunk",
        ),
        pytest.param(
            "chunks.py",
            "chunks.lease_expires_at < now() AND chunks.lease_expires_at + {DELAY} <= now()",
            "true",
            "two holders",
            id="the-lease",
        ),
        pytest.param(
            "chunks.py",
            "chunks.next_run_at IS NULL OR chunks.next_run_at <= now()",
            "true",
            "a chunk was claimed while it rested",
            id="the-rest-after-a-fault",
        ),
        pytest.param(
            "ending.py",
            '    if session.scalar(_IS_OWED, {"job_id": job_id}) is not None:\n        return False\n',
            "",
            "a job has ended wrongly",
            id="what-is-owed-before-a-job-ends",
        ),
        pytest.param(
            "reconciliation.py",
            "    ring_for_chunks(queue, chunks=owed, most=owed)\n",
            "",
            "something never ended",
            id="the-doorbell-of-the-reconciler",
        ),
    ],
)
def test_without_a_guard_the_machine_finds_what_goes_wrong(  # noqa: PLR0917 -- what a row is made of
    package, migrated_url, path, guard, leaving, finding
):
    package.take(path, guard, leaving=leaving)

    ended = package.drive(migrated_url)

    assert ended.returncode == 1, ended.stderr[-3000:]
    assert finding in ended.stderr


def test_without_the_unique_key_of_results_the_machine_finds_one_twice(package, database_url):
    upgrade(database_url)
    with psycopg.connect(make_url(database_url).set(drivername="postgresql").render_as_string(False)) as connection:
        (key,) = connection.execute(
            "SELECT conname FROM pg_constraint WHERE conrelid = 'results'::regclass AND contype = 'u'"
        ).fetchone()
        connection.execute(f"ALTER TABLE results DROP CONSTRAINT {key}".encode())

    ended = package.drive(database_url)

    assert ended.returncode == 1, ended.stderr[-3000:]
    assert "a result twice" in ended.stderr


def test_with_every_guard_in_place_the_copy_is_as_good_as_the_original(package, migrated_url):
    ended = package.drive(migrated_url)

    assert ended.returncode == 0, ended.stderr[-3000:]
