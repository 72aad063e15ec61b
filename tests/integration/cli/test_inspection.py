"""From a folder on this machine to defects in a file, by the real commands, API and worker."""

from __future__ import annotations

import csv
import io
import json
import zipfile

import numpy as np
import pytest
from PIL import Image
from sqlalchemy import text

from tests.images import encode
from tests.models import expect_mask

COUNT = 4


def draw(seed):
    """A bright (256, 256, 3) picture with one dark rectangle, which the model calls defect."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(180, 255, (256, 256, 3), dtype=np.uint8)
    left, top = rng.integers(10, 100, 2)
    pixels[top : top + 30, left : left + 60] = 10
    return pixels


@pytest.fixture(scope="module")
def batch(tmp_path_factory):
    """Images with their exact labels, and a file that is none."""
    root = tmp_path_factory.mktemp("batch")
    for folder in ("images", "labels"):
        (root / folder).mkdir()
    for number in range(COUNT):
        pixels = draw(number)
        (root / "images" / f"part {number}.png").write_bytes(encode(pixels, "PNG"))
        (root / "labels" / f"part {number}.png").write_bytes(encode(expect_mask(pixels), "PNG"))
    (root / "images" / "notes.txt").write_text("from the night shift")
    return root


@pytest.fixture(scope="module")
def broken_batch(batch, tmp_path_factory):
    root = tmp_path_factory.mktemp("broken")
    whole = (batch / "images" / "part 0.png").read_bytes()
    (root / "whole.png").write_bytes(whole)
    (root / "broken.png").write_bytes(whole[: len(whole) // 2])
    return root


@pytest.fixture(scope="module")
def submitted(system, batch):
    """What the command that submitted and watched a job said."""
    return system.run("jobs", "submit", batch, "--overlays", "all", "--mm-per-px", "0.5", "--watch", "--json")


@pytest.fixture(scope="module")
def job(submitted):
    return json.loads(submitted.stdout)


def test_a_job_that_is_watched_ends_with_its_counts_and_scores(submitted, job):
    assert submitted.returncode == 0, submitted.stderr
    assert job["state"] == "succeeded"
    assert job["images"] == {"total": COUNT, "pending": 0, "succeeded": COUNT, "failed": 0, "cancelled": 0}
    assert (job["defective_images"], job["defects"]) == (COUNT, COUNT)
    assert (job["qa"]["images"], job["qa"]["passed"], job["qa"]["pooled"]["iou_defect"]) == (COUNT, True, 1.0)


def test_what_was_left_out_is_said_on_standard_error(submitted):
    assert f"Found {COUNT} images, {COUNT} with labels." in submitted.stderr
    assert "Ignored 1 file that is no images." in submitted.stderr


def test_files_that_are_stored_already_are_not_sent_again(system, batch, job):
    again = system.run("jobs", "submit", batch)

    assert "Uploaded 0 files" in again.stderr
    assert f"{2 * COUNT} were stored already" in again.stderr


def test_a_job_is_shown_for_people(system, job):
    shown = system.run("jobs", "show", job["id"])

    assert shown.returncode == 0
    assert f"Job {job['id']}  succeeded" in shown.stdout
    assert f"images     {COUNT}: {COUNT} succeeded" in shown.stdout
    assert "QA  passed: pooled defect IoU 1.000" in shown.stdout
    assert shown.stderr == ""


def test_items_are_listed_under_the_names_of_their_files(system, job):
    items = system.ask("jobs", "items", job["id"])["items"]

    assert sorted(item["name"] for item in items) == [f"images/part {number}.png" for number in range(COUNT)]
    assert {item["verdict"] for item in items} == {"defective"}


def test_defects_are_the_same_in_every_format(system, job):
    rows = system.ask("defects", "list", "--job", job["id"])["items"]
    written = system.run("defects", "list", "--job", job["id"], "--format", "csv").stdout
    table = system.run("defects", "list", "--job", job["id"]).stdout

    lines = list(csv.DictReader(io.StringIO(written, newline="")))
    assert [row["area_px"] for row in rows] == [30 * 60] * COUNT
    assert [row["area_mm2"] for row in rows] == [30 * 60 * 0.25] * COUNT
    assert [[line["id"], line["area_px"], line["box_x2"]] for line in lines] == [
        [str(row["id"]), str(row["area_px"]), str(row["box_xyxy"][2])] for row in rows
    ]
    assert len(table.splitlines()) == COUNT + 2


def test_the_largest_defects_come_first_and_are_that_many(system, job):
    assert len(system.ask("defects", "list", "--job", job["id"], "--largest", "2")["items"]) == 2


def test_downloaded_masks_are_those_of_the_model(system, job, tmp_path):
    answer = system.ask("results", "download", "--job", job["id"], "--out", tmp_path, "--what", "both")

    assert answer == {"directory": str(tmp_path), "masks": COUNT, "overlays": COUNT}
    for number in range(COUNT):
        with Image.open(tmp_path / "masks" / "images" / f"part {number}.png") as mask:
            assert np.array_equal(np.asarray(mask.convert("L")), expect_mask(draw(number)))
    assert len(list((tmp_path / "overlays").rglob("*.jpg"))) == COUNT


def test_results_and_images_can_be_looked_at(system, job):
    results = system.ask("results", "list", "--job", job["id"], "--verdict", "defective")["items"]
    shown = system.run("results", "show", results[0]["id"])
    image = system.run("images", "show", results[0]["image"]["id"])

    assert len(results) == COUNT
    assert "1, together 1800 px" in shown.stdout
    assert "256 x 256 px" in image.stdout


def test_a_job_with_a_broken_image_names_it_and_the_exit_status_is_1(system, broken_batch):
    done = system.run("jobs", "submit", broken_batch, "--watch")

    assert done.returncode == 1
    assert "partial" in done.stdout
    assert "image_truncated" in done.stdout
    assert "broken.png" in done.stdout


def test_a_job_that_fails_qa_has_exit_status_1(system, batch, tmp_path):
    labels = tmp_path / "truth"
    labels.mkdir()
    for number in range(COUNT):
        nothing = np.zeros((256, 256), np.uint8)
        (labels / f"part {number}.png").write_bytes(encode(nothing, "PNG"))

    done = system.run("jobs", "submit", batch / "images", "--labels", labels, "--watch")

    assert done.returncode == 1
    assert "succeeded" in done.stdout
    assert "QA  failed: pooled defect IoU 0.000" in done.stdout


def test_a_zip_is_submitted_as_it_is(system, batch, tmp_path):
    archive = tmp_path / "batch.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(batch.rglob("*.png")):
            file.write(path, path.relative_to(batch).as_posix())

    job = system.ask("jobs", "submit", archive, "--watch")

    assert job["source"]["kind"] == "archive"
    assert (job["images"]["succeeded"], job["images"]["failed"]) == (COUNT, 0)


def test_a_prefix_and_a_list_of_keys_give_the_same_images(system, job):
    stored = [item["source_uri"] for item in system.ask("jobs", "items", job["id"])["items"]]

    listed = system.run("jobs", "submit", "--keys", "-", "--watch", "--json", stdin="\n".join(stored))

    assert listed.returncode == 0, listed.stderr
    assert json.loads(listed.stdout)["defects"] == job["defects"]


def test_a_manifest_of_this_machine_is_uploaded_and_inspected(system, job, tmp_path):
    items = system.ask("jobs", "items", job["id"])["items"]
    manifest = tmp_path / "images.csv"
    manifest.write_text("name,uri\n" + "".join(f"again/{item['name']},{item['source_uri']}\n" for item in items))

    done = system.ask("jobs", "submit", "--manifest", manifest, "--priority", "high", "--watch")
    again = system.ask("jobs", "submit", "--manifest", done["source"]["uri"], "--watch")
    refused = system.run("jobs", "submit", "--manifest", manifest, "--keys", "-")

    assert (done["defects"], done["priority"], done["source"]["kind"]) == (job["defects"], "high", "manifest")
    assert again["images"] == done["images"]
    assert refused.returncode == 2
    names = [item["name"] for item in system.ask("jobs", "items", done["id"])["items"]]
    assert names == [f"again/{item['name']}" for item in items]


def test_a_manifest_with_a_wrong_line_names_it(system, tmp_path):
    manifest = tmp_path / "images.csv"
    manifest.write_text("uri\na,b\n")

    done = system.run("jobs", "submit", "--manifest", manifest, "--watch")

    assert done.returncode == 1
    assert "Line 2 of the manifest has 2 values for 1 columns. (manifest_invalid)" in done.stdout


@pytest.fixture
def waiting_job(parts, job):
    """The id of a job of one image that was paused before anybody could begin it."""
    database, _ = parts
    with database.transaction() as session:
        job_id = session.scalar(
            text("""
                INSERT INTO jobs (state, source, params, model_version_id, request_sha256, enumerated_at, paused_at,
                    pending_images)
                SELECT 'running', source, params, model_version_id, request_sha256, now(), now(), 1
                FROM jobs WHERE id = :id RETURNING id"""),
            {"id": job["id"]},
        )
        chunk_id = session.scalar(
            text("INSERT INTO chunks (job_id, image_count) VALUES (:id, 1) RETURNING id"), {"id": job_id}
        )
        session.execute(
            text("""
                INSERT INTO job_items (job_id, chunk_id, name, source_uri)
                SELECT :id, :chunk_id, name, source_uri FROM job_items WHERE job_id = :other LIMIT 1"""),
            {"id": job_id, "chunk_id": chunk_id, "other": job["id"]},
        )
    return job_id


def test_a_paused_job_is_shown_prioritised_and_resumed_to_its_end(system, waiting_job):
    paused = system.ask("jobs", "pause", waiting_job)
    shown = system.run("jobs", "show", waiting_job)
    listed = system.run("jobs", "list")
    prioritised = system.run("jobs", "prioritise", waiting_job, "low")
    resumed = system.ask("jobs", "resume", waiting_job)
    ended = system.ask("jobs", "watch", waiting_job)
    refused = system.run("jobs", "pause", waiting_job)

    assert (paused["paused"], paused["images"]["pending"], resumed["paused"]) == (True, 1, False)
    assert "(paused)" in shown.stdout
    assert "(paused)" in listed.stdout
    assert prioritised.stdout == f"Job {waiting_job} has low priority.\n"
    assert (ended["state"], ended["priority"], ended["paused"]) == ("succeeded", "low", False)
    assert "(job_not_pausable)" in refused.stderr


def test_files_are_submitted_by_name(system, batch):
    job = system.ask("jobs", "submit", *sorted((batch / "images").glob("part*.png"))[:2], "--name", "two", "--watch")

    assert (job["name"], job["images"]["total"]) == ("two", 2)


def test_the_same_key_gives_the_same_job_and_a_different_request_is_refused(system, batch):
    key = ("--idempotency-key", "night-1")

    first = system.ask("jobs", "submit", batch, *key)
    second = system.ask("jobs", "submit", batch, *key)
    other = system.run("jobs", "submit", batch, *key, "--overlays", "none")

    assert first["id"] == second["id"]
    assert other.returncode == 1
    assert "(idempotency_conflict)" in other.stderr


def test_the_servers_refusal_is_the_commands_sentence(system):
    done = system.run("jobs", "cancel", 999_999)

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: There is no job 999999. (job_not_found)\n"


def test_a_finished_job_can_be_neither_cancelled_nor_retried(system, job):
    cancelled = system.run("jobs", "cancel", job["id"])
    retried = system.run("jobs", "retry", job["id"])

    assert "(job_not_cancellable)" in cancelled.stderr
    assert "(job_not_retryable)" in retried.stderr


def test_jobs_and_models_are_listed(system, job):
    jobs = system.ask("jobs", "list", "--state", "succeeded", "--limit", "0")["items"]
    [model] = system.ask("models", "list")["items"]
    shown = system.run("models", "show", model["number"])

    assert job["id"] in [entry["id"] for entry in jobs]
    assert model["is_champion"]
    assert "champion" in shown.stdout


def test_an_image_is_added_once(system, batch):
    path = batch / "images" / "part 0.png"

    first = system.ask("images", "add", path)
    second = system.ask("images", "add", path)

    assert first == second
    assert first["width"] == 256


def test_an_image_that_is_none_is_refused_with_its_reason(system, batch):
    done = system.run("images", "add", batch / "images" / "notes.txt")

    assert done.returncode == 1
    assert "(image_not_recognised)" in done.stderr
