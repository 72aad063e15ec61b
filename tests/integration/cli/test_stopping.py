"""Jobs that end before they are done, by the real commands: what was asked for, what is said, what can be done next."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from defectoscope.database import QuarantinedImage
from defectoscope.errors.images import ImageTruncated
from defectoscope.inspection.chunks import claim_next_chunk
from defectoscope.inspection.completion import ItemOutcome, complete_chunk
from defectoscope.inspection.reconciliation import reconcile
from defectoscope.queue import MemoryQueue
from tests.images import draw_part, encode
from tests.integration.cli.conftest import open_parts

COUNT = 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    directory = tmp_path_factory.mktemp("images")
    for seed in range(COUNT):
        (directory / f"{seed}.png").write_bytes(encode(draw_part(height=64, seed=seed)[0], "PNG"))
    return directory


@pytest.fixture(scope="module")
def database(idle_system):
    with open_parts(idle_system.environment) as (database, _):
        yield database


def _reconcile(database):
    reconcile(database=database, queue=MemoryQueue(), resend_after_s=60, max_attempts=3)


def _pass_deadline(database, job_id):
    with database.transaction() as session:
        session.execute(text("UPDATE jobs SET deadline_at = now() WHERE id = :id"), {"id": job_id})


def test_what_was_asked_for_is_shown(idle_system, folder):
    job = idle_system.ask("jobs", "submit", folder, "--deadline", "3600", "--max-failed", "0.25")

    shown = idle_system.run("jobs", "show", job["id"])

    assert (job["deadline_at"] is None, job["max_failed_share"]) == (False, 0.25)
    assert "  deadline   " in shown.stdout
    assert "  may fail   25% of the images" in shown.stdout


def test_a_job_without_bounds_shows_none(idle_system, folder):
    job = idle_system.ask("jobs", "submit", folder)

    shown = idle_system.run("jobs", "show", job["id"])

    assert (job["deadline_at"], job["max_failed_share"]) == (None, None)
    assert "deadline" not in shown.stdout
    assert "may fail" not in shown.stdout


@pytest.mark.parametrize(
    ("option", "value"),
    [
        pytest.param("--deadline", "0.5", id="no-time"),
        pytest.param("--deadline", "soon", id="no-number"),
        pytest.param("--max-failed", "1.01", id="more-than-all"),
        pytest.param("--max-failed", "-0.1", id="less-than-none"),
    ],
)
def test_a_bound_that_makes_no_sense_is_a_wrong_use(idle_system, folder, option, value):
    done = idle_system.run("jobs", "submit", folder, option, value)

    assert (done.returncode, done.stdout) == (2, "")
    assert option in done.stderr


def test_a_deadline_beyond_what_the_api_takes_is_its_refusal(idle_system, folder):
    done = idle_system.run("jobs", "submit", folder, "--deadline", "1e12")

    assert (done.returncode, done.stdout) == (1, "")
    assert "(invalid_request)" in done.stderr


def test_an_overdue_job_fails_by_name_and_is_retried_without_a_deadline(idle_system, database, folder):
    job_id = idle_system.ask("jobs", "submit", folder, "--deadline", "3600")["id"]
    _pass_deadline(database, job_id)
    _reconcile(database)

    watched = idle_system.run("jobs", "watch", job_id)
    items = idle_system.ask("jobs", "items", job_id, "--state", "failed")["items"]
    retried = idle_system.run("jobs", "retry", job_id)
    again = idle_system.ask("jobs", "show", job_id)

    assert watched.returncode == 1
    assert f"Job {job_id}  failed" in watched.stdout
    assert watched.stdout.count("(deadline_exceeded)") == 1
    assert [item["error"]["code"] for item in items] == ["deadline_exceeded"] * COUNT
    assert retried.stdout == f"Job {job_id} is at work again: {COUNT} images.\n"
    assert (again["state"], again["deadline_at"], again["error"]) == ("running", None, None)


def test_a_job_with_too_many_failures_stops_by_name(idle_system, database, folder):
    job_id = idle_system.ask("jobs", "submit", folder, "--max-failed", "0", "--priority", "high")["id"]
    chunk = claim_next_chunk(database=database, owner="test", lease_s=60, max_attempts=3)
    outcomes = [ItemOutcome(item_id=item.item_id, error=ImageTruncated()) for item in chunk.items]
    complete_chunk(database=database, chunk=chunk, outcomes=outcomes)

    shown = idle_system.run("jobs", "show", job_id)
    paused = idle_system.run("jobs", "pause", job_id)

    assert chunk.job_id == job_id
    assert "(failure_budget_exceeded)" in shown.stdout
    assert "  may fail   0% of the images" in shown.stdout
    assert "(job_not_pausable)" in paused.stderr


def test_a_job_that_nobody_has_begun_is_cancelled_at_once(idle_system, folder):
    job_id = idle_system.ask("jobs", "submit", folder)["id"]

    cancelled = idle_system.run("jobs", "cancel", job_id)
    retried = idle_system.run("jobs", "retry", job_id)

    assert cancelled.stdout == f"Job {job_id} is cancelled; 0 of {COUNT} images were done.\n"
    assert "(job_not_retryable)" in retried.stderr


def test_a_job_in_work_is_cancelled_by_its_worker(idle_system, database, folder):
    job_id = idle_system.ask("jobs", "submit", folder, "--priority", "high")["id"]
    chunk = claim_next_chunk(database=database, owner="test", lease_s=60, max_attempts=3)

    asked = idle_system.run("jobs", "cancel", job_id)
    meanwhile = idle_system.run("jobs", "show", job_id)
    complete_chunk(database=database, chunk=chunk, outcomes=[], stopped=True)
    ended = idle_system.ask("jobs", "watch", job_id, status=1)

    assert asked.stdout == f"Job {job_id} is being cancelled; the images in work are finished first.\n"
    assert "  cancel     requested" in meanwhile.stdout
    assert (ended["state"], ended["images"]["cancelled"]) == ("cancelled", COUNT)


def test_an_image_is_shown_in_quarantine_and_let_out_once(idle_system, database):
    empty = idle_system.run("images", "quarantined")
    with database.transaction() as session:
        session.add(QuarantinedImage(sha256="5e" * 32, source_uri="s3://line/killer.png", name="killer.png"))

    listed = idle_system.run("images", "quarantined")
    (image,) = idle_system.ask("images", "quarantined")["items"]
    released = idle_system.run("images", "release", image["id"])
    again = idle_system.run("images", "release", image["id"])

    assert "No image is in quarantine." in empty.stdout
    assert "killer.png" in listed.stdout
    assert "5e5e5e5e5e5e…" in listed.stdout
    assert released.stdout.startswith("killer.png is out of quarantine")
    assert idle_system.ask("images", "quarantined")["items"] == []
    assert (again.returncode, again.stdout) == (1, "")
    assert "(quarantined_image_not_found)" in again.stderr
