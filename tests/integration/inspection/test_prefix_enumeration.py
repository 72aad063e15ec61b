from __future__ import annotations

from dataclasses import replace

import pytest

from defectoscope.database import JobState
from defectoscope.inspection.listing import PAGE_SIZE
from defectoscope.inspection.sources import InputBuckets
from defectoscope.queue import WAITING_DOORBELLS, messages
from defectoscope.storage import open_memory, open_s3
from tests.integration.inspection.stores import (
    OWN,
    memory_buckets,
    no_bucket,
    put_all,
    run_enumeration,
    submit_prefix,
)


def _labels(scene, job_id):
    return {item.name: item.label_uri for item in scene.items(job_id)}


def test_a_prefix_of_2500_images_is_listed_once_with_its_labels_on_the_real_server(scene, s3, storage):
    stems = [f"{number // 100:02}/part-{number:04}" for number in range(1250)]
    # Stems that sort in another order than their keys: "a-1.png" comes before "a.png", and "a" before "a-1".
    stems += [f"{stem}-1" for stem in stems]
    labelled = {stem for number, stem in enumerate(stems) if number % 5 == 0}
    put_all(storage, [f"lot/images/{stem}.png" for stem in stems] + [f"lot/labels/{stem}.png" for stem in labelled])
    buckets = InputBuckets(own_name=s3.bucket, own=storage, open_bucket=lambda name: open_s3(s3, bucket=name))
    job_id = submit_prefix(scene, f"s3://{s3.bucket}/lot")

    run_enumeration(scene, buckets, job_id)

    items = scene.items(job_id)
    assert [item.name for item in items] == sorted(f"images/{stem}.png" for stem in stems)
    assert {item.name for item in items if item.label_uri} == {f"images/{stem}.png" for stem in labelled}
    assert all(
        item.label_uri == f"s3://{s3.bucket}/lot/{item.name.replace('images', 'labels', 1)}"
        for item in items
        if item.label_uri
    )
    assert all(item.source_etag for item in items)
    assert scene.job(job_id).state is JobState.RUNNING
    owed = scene.owed(job_id)
    # The message that asked for the enumeration is still in the queue and counts as one that waits.
    assert scene.queue.messages == [
        messages.enumerate_job(job_id),
        *[messages.process_next_chunk()] * (WAITING_DOORBELLS - 1),
    ]
    # 1000, 1000 and 500 images on three pages, in chunks of 16.
    assert len(owed) == 63 + 63 + 32


@pytest.mark.parametrize("count", [1, PAGE_SIZE - 1, PAGE_SIZE, PAGE_SIZE + 1])
def test_a_page_that_is_just_full_loses_and_doubles_nothing(scene, count):
    buckets = memory_buckets()
    put_all(buckets.own, [f"lot/{number:05}.png" for number in range(count)])
    job_id = submit_prefix(scene, f"s3://{OWN}/lot")

    run_enumeration(scene, buckets, job_id)

    assert [item.name for item in scene.items(job_id)] == [f"{number:05}.png" for number in range(count)]
    assert scene.job(job_id).enumerated_at is not None


def test_a_prefix_is_a_folder_and_takes_images_alone(scene):
    buckets = memory_buckets()
    keys = ["lot-1/a.PNG", "lot-1/.b.png", "lot-1/notes.txt", "lot-1/labels/c.png", "lot-10/d.png", "lot-1.png"]
    put_all(buckets.own, keys)
    job_id = submit_prefix(scene, f"s3://{OWN}/lot-1")

    run_enumeration(scene, buckets, job_id)

    assert [item.name for item in scene.items(job_id)] == ["a.PNG"]


def test_the_images_folder_itself_can_be_the_prefix_with_its_labels_beside_it(scene):
    buckets = memory_buckets()
    put_all(buckets.own, ["lot/images/a.png", "lot/images/b.png", "lot/labels/a.png"])
    job_id = submit_prefix(scene, f"s3://{OWN}/lot/images")

    run_enumeration(scene, buckets, job_id)

    assert _labels(scene, job_id) == {"a.png": f"s3://{OWN}/lot/labels/a.png", "b.png": None}


def test_the_whole_bucket_can_be_a_prefix(scene):
    buckets = memory_buckets()
    put_all(buckets.own, ["a.png", "b/c.png"])
    job_id = submit_prefix(scene, f"s3://{OWN}")

    run_enumeration(scene, buckets, job_id)

    assert [item.name for item in scene.items(job_id)] == ["a.png", "b/c.png"]


def test_labels_may_lie_in_a_folder_of_another_bucket(scene):
    truth = open_memory()
    buckets = memory_buckets(others={"truth-bucket": truth}, allowed=("truth-bucket",))
    put_all(buckets.own, ["lot/a.png", "lot/a-1.png", "lot/b/c.png", "lot/d.png"])
    put_all(truth, ["masks/a.tif", "masks/a-1.png", "masks/b/c.png", "masks/b/zzz.png", "masks/d.txt"])
    job_id = submit_prefix(scene, f"s3://{OWN}/lot", labels_uri="s3://truth-bucket/masks")

    run_enumeration(scene, buckets, job_id)

    assert _labels(scene, job_id) == {
        "a.png": "s3://truth-bucket/masks/a.tif",
        "a-1.png": "s3://truth-bucket/masks/a-1.png",
        "b/c.png": "s3://truth-bucket/masks/b/c.png",
        "d.png": None,
    }


def test_a_named_labels_folder_below_the_images_holds_no_images(scene):
    buckets = memory_buckets()
    put_all(buckets.own, ["lot/a.png", "lot/masks/a.png", "lot/masks-of-old/b.png"])
    job_id = submit_prefix(scene, f"s3://{OWN}/lot", labels_uri=f"s3://{OWN}/lot/masks")

    run_enumeration(scene, buckets, job_id)

    assert _labels(scene, job_id) == {"a.png": f"s3://{OWN}/lot/masks/a.png", "masks-of-old/b.png": None}


def test_a_file_that_is_no_picture_is_no_label_whatever_sorts_first(scene):
    buckets = memory_buckets()
    put_all(buckets.own, ["images/a.png", "labels/a.json", "labels/a.png", "labels/a.txt"])
    job_id = submit_prefix(scene, f"s3://{OWN}")

    run_enumeration(scene, buckets, job_id)

    assert _labels(scene, job_id) == {"images/a.png": f"s3://{OWN}/labels/a.png"}


@pytest.mark.parametrize(
    ("uri", "labels_uri", "code"),
    [
        pytest.param(f"s3://{OWN}/empty", None, "no_images_found", id="no-images"),
        pytest.param("s3://missing-bucket/lot", None, "bucket_not_found", id="missing-bucket"),
        pytest.param("s3://forbidden-bucket/lot", None, "bucket_not_allowed", id="bucket-not-allowed"),
        pytest.param(f"s3://{OWN}/lot", "s3://forbidden-bucket/lot", "bucket_not_allowed", id="labels-not-allowed"),
        pytest.param(f"s3://{OWN}/lot", "s3://missing-bucket/lot", "bucket_not_found", id="labels-missing"),
        pytest.param("http://elsewhere/lot", None, "invalid_storage_uri", id="no-s3-address"),
        pytest.param(f"s3://{OWN}/../lot", None, "invalid_storage_uri", id="escaping-address"),
    ],
)
def test_a_source_that_cannot_be_read_ends_the_job_with_its_error(scene, uri, labels_uri, code):
    buckets = memory_buckets(allowed=("missing-bucket",))
    put_all(buckets.own, ["lot/a.png"])
    job_id = submit_prefix(scene, uri, labels_uri=labels_uri)

    run_enumeration(scene, buckets, job_id)

    job = scene.job(job_id)
    assert (job.state, job.error_code) == (JobState.FAILED, code)
    assert job.finished_at is not None
    assert job.error_message


def test_a_bucket_that_is_missing_on_the_real_server_ends_the_job_with_its_error(scene, s3, storage):
    buckets = InputBuckets(
        own_name=s3.bucket, own=storage, open_bucket=lambda name: open_s3(s3, bucket=name), allowed=("*",)
    )
    job_id = submit_prefix(scene, "s3://no-such-bucket-here/lot")

    run_enumeration(scene, buckets, job_id)

    assert scene.job(job_id).error_code == "bucket_not_found"


def test_a_storage_that_refuses_our_credentials_ends_the_job_and_is_not_asked_for_ever(scene, s3):
    stranger = open_s3(replace(s3, secret_key="wrong"))
    buckets = InputBuckets(own_name=s3.bucket, own=stranger, open_bucket=no_bucket)
    job_id = submit_prefix(scene, f"s3://{s3.bucket}/lot")

    run_enumeration(scene, buckets, job_id)

    assert (scene.job(job_id).state, scene.job(job_id).error_code) == (JobState.FAILED, "storage_denied")
