"""The main job, by the commands a person types, on real processes."""

from __future__ import annotations

import csv
import dataclasses
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import boto3
import numpy as np
import pytest
from botocore.config import Config
from PIL import Image

from defectoscope.samples import generate_samples

BATCH = 10


@pytest.fixture(scope="module")
def batch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("batch")
    generate_samples(directory, count=BATCH, seed=6, layout="flat")
    return directory


@pytest.fixture(scope="module")
def job(system, batch) -> dict:
    system.run("jobs", "submit", str(batch), "--overlays", "all", "--watch", "--qa-min-iou", "0")
    newest = system.ask("jobs", "list")["items"][0]
    return system.ask("jobs", "show", str(newest["id"]))


@pytest.fixture(scope="module")
def incoming(system) -> Iterator[object]:
    """A bucket of somebody else's, on the same server, that jobs may read from."""
    environment = dict(
        line.split("=", 1) for line in Path(system.environment["DEFECTOSCOPE_CONNECTION_FILE"]).read_text().splitlines()
    )
    client = boto3.client(
        "s3",
        endpoint_url=environment["DEFECTOSCOPE_STORAGE__ENDPOINT_URL"],
        aws_access_key_id=environment["DEFECTOSCOPE_STORAGE__ACCESS_KEY"],
        aws_secret_access_key=environment["DEFECTOSCOPE_STORAGE__SECRET_KEY"],
        region_name="us-east-1",
        config=Config(s3={"addressing_style": "path"}),
    )
    client.create_bucket(Bucket="incoming")
    yield client
    client.close()


def test_every_image_of_a_batch_ends_with_a_result(job):
    assert job["state"] == "succeeded"
    assert job["images"] == {"total": BATCH, "pending": 0, "succeeded": BATCH, "failed": 0, "cancelled": 0}


def test_the_scores_equal_those_of_the_stored_masks_pixel_for_pixel(system, job, batch, tmp_path):
    system.ask("results", "download", "--job", str(job["id"]), "--out", str(tmp_path), "--what", "masks")
    counts = dict.fromkeys(("tp", "fp", "fn", "tn"), 0)
    masks = {path.stem: path for path in tmp_path.rglob("*.png")}

    for label_path in (batch / "labels").iterdir():
        label = np.asarray(Image.open(label_path).convert("L")) > 0
        mask = np.asarray(Image.open(masks[label_path.stem]).convert("L")) > 0
        counts["tp"] += int((mask & label).sum())
        counts["fp"] += int((mask & ~label).sum())
        counts["fn"] += int((~mask & label).sum())
        counts["tn"] += int((~mask & ~label).sum())

    assert {name: job["qa"]["pooled"][name] for name in counts} == counts
    assert job["qa"]["images"] == BATCH


def test_defect_records_add_up_to_the_masks(system, job, tmp_path):
    listing = system.run("defects", "list", "--job", str(job["id"]), "--format", "csv")
    system.ask("results", "download", "--job", str(job["id"]), "--out", str(tmp_path), "--what", "masks")

    rows = list(csv.DictReader(io.StringIO(listing.stdout)))
    mask_px = sum(int((np.asarray(Image.open(path).convert("L")) > 0).sum()) for path in tmp_path.rglob("*.png"))

    assert len(rows) == job["defects"]
    assert sum(int(row["area_px"]) for row in rows) == mask_px


def test_the_same_directory_again_shares_results(system, job, batch):
    again = system.ask("jobs", "submit", str(batch), "--overlays", "all", "--qa-min-iou", "0", "--watch")
    first, second = (
        {item["name"]: item["result_id"] for item in system.ask("jobs", "items", str(job_id))["items"]}
        for job_id in (job["id"], again["id"])
    )

    assert again["id"] != job["id"]
    assert first == second


def test_an_archive_gives_the_same_results(system, job, batch, tmp_path):
    path = tmp_path / "batch.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(batch.rglob("*.*")):
            archive.write(file, file.relative_to(batch).as_posix())
        archive.writestr("../escape.jpg", b"x")

    ended = system.ask(*("jobs", "submit", str(path), "--overlays", "all", "--qa-min-iou", "0", "--watch"), status=1)
    items = system.ask("jobs", "items", str(ended["id"]), "--state", "failed")["items"]

    assert ended["state"] == "partial"
    assert [(item["name"], item["error"]["code"]) for item in items] == [("../escape.jpg", "archive_member_unsafe")]
    assert ended["qa"]["pooled"] == job["qa"]["pooled"]


def test_a_prefix_in_an_allowed_bucket_gives_the_same_results(system, job, batch, incoming):
    for file in batch.rglob("*.*"):
        incoming.put_object(
            Bucket="incoming", Key=f"line7/{file.relative_to(batch).as_posix()}", Body=file.read_bytes()
        )

    ended = system.ask("jobs", "submit", "s3://incoming/line7", "--overlays", "all", "--qa-min-iou", "0", "--watch")

    assert ended["state"] == "succeeded"
    assert ended["qa"]["pooled"] == job["qa"]["pooled"]


@pytest.mark.parametrize(
    ("uri", "code"),
    [
        pytest.param("s3://incoming/empty", "no_images_found", id="a prefix with no images"),
        pytest.param("s3://nowhere/x", "bucket_not_found", id="a missing bucket"),
        pytest.param("s3://secret/x", "bucket_not_allowed", id="a bucket that is not allowed"),
    ],
)
def test_a_source_that_cannot_be_read_is_refused_by_name(system, incoming, uri, code):
    refused = system.run("jobs", "submit", uri)

    assert refused.returncode == 1
    assert code in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1


def test_a_bad_file_fails_alone_and_by_name(system, batch, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    good = min((batch / "images").iterdir())
    (images / "good.jpg").write_bytes(good.read_bytes())
    (images / "empty.jpg").write_bytes(b"")
    (images / "truncated.jpg").write_bytes(good.read_bytes()[:2000])
    (images / "words.png").write_text("not an image")
    Image.new("CMYK", (40, 30), (0, 255, 0, 0)).save(images / "cmyk.jpg")
    labels = tmp_path / "labels"
    labels.mkdir()
    Image.new("L", (3, 3)).save(labels / "good.png")

    ended = system.ask("jobs", "submit", str(tmp_path), "--watch", status=1)
    items = {item["name"]: item for item in system.ask("jobs", "items", str(ended["id"]))["items"]}

    assert ended["state"] == "partial"
    assert {name: item["error"] and item["error"]["code"] for name, item in items.items()} == {
        "images/good.jpg": None,
        "images/cmyk.jpg": None,
        "images/empty.jpg": "image_empty",
        "images/truncated.jpg": "image_truncated",
        "images/words.png": "image_not_recognised",
    }
    assert items["images/good.jpg"]["label_error"]["code"] == "label_size_mismatch"


def test_the_same_idempotency_key_gives_the_same_job(system, batch):
    first, second = (
        system.ask("jobs", "submit", str(batch), "--idempotency-key", "shift-7", "--name", "early") for _ in range(2)
    )
    other = system.run("jobs", "submit", str(batch), "--idempotency-key", "shift-7", "--name", "late")

    assert first["id"] == second["id"]
    assert other.returncode == 1
    assert "idempotency_conflict" in other.stderr


def test_predict_without_servers_draws_the_masks_of_the_job(system, job, batch, tmp_path):
    system.ask("results", "download", "--job", str(job["id"]), "--out", str(tmp_path / "job"), "--what", "masks")
    (variant,) = {result["variant"] for result in system.ask("results", "list", "--job", str(job["id"]))["items"]}
    model = tmp_path / "model.onnx"
    number = str(job["model_version"])
    system.ask("models", "export", number, "--variant", variant, "--out", str(model))

    done = system.run("predict", str(batch / "images"), "--out", str(tmp_path / "own"), "--model", str(model))

    assert done.returncode == 0, done.stderr
    masks = {path.stem: path for path in (tmp_path / "job").rglob("*.png")}
    for path in (tmp_path / "own" / "masks").rglob("*.png"):
        assert path.read_bytes() == masks[path.stem].read_bytes()
    assert len(masks) == BATCH


def test_predict_takes_the_champion_of_the_servers_and_asks_for_a_file_without_any(system, batch, tmp_path):
    image = str(min((batch / "images").iterdir()))
    alone = {**system.environment, "DEFECTOSCOPE_CONNECTION_FILE": str(tmp_path / "none")}

    done = system.run("predict", image, "--out", str(tmp_path / "own"))
    refused = dataclasses.replace(system, environment=alone).run("predict", image, "--out", str(tmp_path / "own"))

    assert done.returncode == 0, done.stderr
    assert refused.returncode == 1
    assert "--model" in refused.stderr


def test_doctor_finds_nothing_to_mend(system):
    assert system.run("doctor").returncode == 0
