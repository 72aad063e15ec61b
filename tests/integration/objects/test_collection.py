"""The collector on a real bucket: what goes, what stays, and who may collect."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select, text

from defectoscope.database import Event, ObjectCollection
from defectoscope.errors.retention import CollectionRunning
from defectoscope.objects import KINDS, collect, kind_of, survey
from defectoscope.objects.collection import STEP_OBJECTS
from defectoscope.storage import Buckets, open_memory
from tests.integration.objects.conftest import NO_GRACE

SHA = "ab" * 32
#: An object of each kind that no row points at.
ORPHANS = [
    f"datasets/{SHA}.json",
    f"masks/ab/{SHA}.png",
    f"models/{SHA}.onnx",
    f"models/{SHA}.safetensors",
    f"objects/sha256/ab/{SHA}",
    f"overlays/ab/{SHA}/v3-{SHA[:16]}.jpg",
    "training/7/checkpoints/2-5.safetensors",
    "training/7/report-2.html",
]
#: Somebody else's, some of them under our prefixes.
FOREIGN = ["in/line-3/a.png", "masks/of-last-year.png", "objects/readme.txt", "training/7/notes.txt", "zz"]


def put_all(storage, keys):
    for key in keys:
        storage.put(key, b"x", content_type="application/octet-stream")


def keys_of(storage):
    return [info.key for info in storage.list()]


def test_the_orphans_cover_every_kind():
    assert {kind_of(key).name for key in ORPHANS} == {kind.name for kind in KINDS}
    assert [kind.prefix for kind in KINDS] == sorted(kind.prefix for kind in KINDS)


def test_an_object_of_any_kind_goes_when_nothing_points_at_it_and_foreign_ones_stay(storage, database, collect_now):
    put_all(storage, [*ORPHANS, *FOREIGN])

    done = collect_now()

    assert keys_of(storage) == FOREIGN
    assert (done.is_finished, done.deleted_objects, done.deleted_bytes) == (True, len(ORPHANS), len(ORPHANS))
    with database.transaction() as session:
        walk = session.scalars(select(ObjectCollection)).one()
        (event,) = session.scalars(select(Event)).all()
    assert (walk.deleted_objects, walk.finished_at is not None, walk.lease_owner) == (len(ORPHANS), True, None)
    assert (event.kind, event.details["deleted_objects"]) == ("storage.collected", len(ORPHANS))


def test_what_is_younger_than_the_grace_stays(storage, collect_now):
    put_all(storage, ORPHANS)

    done = collect_now(grace=timedelta(hours=1))

    assert keys_of(storage) == sorted(ORPHANS)
    assert (done.examined_objects, done.deleted_objects) == (len(ORPHANS), 0)


def test_a_survey_counts_what_would_go_and_deletes_nothing(storage, database, s3):
    put_all(storage, [*ORPHANS, *FOREIGN])

    found = survey(database=database, storage=storage, bucket=s3.bucket, grace=NO_GRACE)

    assert sum(found.unreferenced.values()) == len(ORPHANS)
    assert found.unreferenced["model files"] == 2
    assert keys_of(storage) == sorted([*ORPHANS, *FOREIGN])


IMAGE_COLUMNS = "(sha256, key, size_bytes, width, height, format, source_mode)"
VARIANT_COLUMNS = "(model_version_id, precision, key, sha256, size_bytes, parity)"
REVISION_COLUMNS = "(name, number, sha256, manifest_key, train_count, val_count)"
#: A statement that points at an object of ours, and its key.
POINTERS = {
    "original": (
        f"INSERT INTO images {IMAGE_COLUMNS} VALUES (:sha, :key, 1, 1, 1, 'PNG', 'RGB')",  # noqa: S608 -- constants
        f"objects/sha256/ab/{SHA}",
    ),
    "image-of-a-job-that-is-owed": (
        "INSERT INTO job_items (job_id, name, source_uri) VALUES (1, 'a', :uri)",
        f"objects/sha256/ab/{SHA}",
    ),
    "label-of-a-job-that-is-owed": (
        "INSERT INTO job_items (job_id, name, source_uri, label_uri) VALUES (1, 'a', 's3://elsewhere/a', :uri)",
        f"objects/sha256/ab/{SHA}",
    ),
    "failed-image-that-may-be-retried": (
        "INSERT INTO job_items (job_id, name, source_uri, state) VALUES (1, 'a', :uri, 'failed')",
        f"objects/sha256/ab/{SHA}",
    ),
    "archive-that-is-not-enumerated": (
        "UPDATE jobs SET source = jsonb_build_object('kind', 'archive', 'uri', CAST(:uri AS text))",
        f"objects/sha256/ab/{SHA}",
    ),
    "model-that-is-to-be-imported": (
        "INSERT INTO model_imports (file_name, key, sha256, options, actor) VALUES ('m', :key, :sha, '{}', 'a')",
        f"objects/sha256/ab/{SHA}",
    ),
    "lease": (
        "INSERT INTO object_leases (key, expires_at) VALUES (:key, now() + interval '1 minute')",
        f"objects/sha256/ab/{SHA}",
    ),
    "model-file": (
        f"INSERT INTO model_variants {VARIANT_COLUMNS} VALUES (1, 'fp32', :key, :sha, 1, '{{}}')",  # noqa: S608 -- constants
        f"models/{SHA}.onnx",
    ),
    "weights": (
        "UPDATE model_versions SET weights_key = :key, weights_sha256 = :sha",
        f"models/{SHA}.safetensors",
    ),
    "dataset-manifest": (
        f"INSERT INTO dataset_revisions {REVISION_COLUMNS} VALUES ('d', 1, :sha, :key, 1, 1)",  # noqa: S608 -- constants
        f"datasets/{SHA}.json",
    ),
}


@pytest.fixture
def a_job(database):
    """A job of one model version, both with the id 1, of which nothing points at an object."""
    with database.transaction() as session:
        session.execute(text("INSERT INTO model_versions (number, contract) VALUES (1, '{}')"))
        session.execute(
            text("INSERT INTO jobs (source, params, model_version_id, request_sha256) VALUES ('{}', '{}', 1, '')")
        )


@pytest.mark.parametrize(("statement", "key"), POINTERS.values(), ids=POINTERS.keys())
@pytest.mark.usefixtures("a_job")
def test_a_row_that_points_at_an_object_keeps_it(storage, database, collect_now, statement, key):
    put_all(storage, ORPHANS)
    values = {"key": key, "sha": SHA, "uri": f"s3://{storage.bucket}/{key}"}
    pointing = text(statement)
    with database.transaction() as session:
        session.execute(pointing, {name: values[name] for name in pointing.compile().params})

    collect_now()

    assert keys_of(storage) == [key]


@pytest.mark.usefixtures("a_job")
def test_results_and_training_runs_keep_what_they_point_at(storage, database, collect_now):
    put_all(storage, ORPHANS)
    mask, overlay, checkpoint, report = ORPHANS[1], ORPHANS[5], ORPHANS[6], ORPHANS[7]
    with database.transaction() as session:
        session.execute(text(POINTERS["original"][0]), {"sha": SHA, "key": "elsewhere"})
        session.execute(
            text(
                "INSERT INTO results (image_id, model_version_id, params_sha256, verdict, defect_px, defect_count,"
                " threshold, min_area_px, mask_key, mask_sha256, overlay_key, variant, provider, runtime_version,"
                " latency_ms) VALUES (1, 1, 'p', 'clean', 0, 0, 0.5, 1, :mask, 's', :overlay, 'fp32', 'cpu', '1', 1)"
            ),
            {"mask": mask, "overlay": overlay},
        )
        session.execute(
            text(
                "INSERT INTO dataset_revisions (name, number, sha256, manifest_key, train_count, val_count)"
                " VALUES ('d', 1, 's', 'k', 1, 1)"
            )
        )
        session.execute(
            text(
                "INSERT INTO training_runs (dataset_revision_id, config, checkpoint, report_key)"
                " VALUES (1, '{}', jsonb_build_object('key', CAST(:checkpoint AS text)), :report)"
            ),
            {"checkpoint": checkpoint, "report": report},
        )

    collect_now()
    kept = keys_of(storage)
    with database.transaction() as session:
        session.execute(text("UPDATE results SET deleted_at = now()"))
        session.execute(text("UPDATE training_runs SET state = 'failed'"))
    collect_now()

    assert kept == sorted([mask, overlay, checkpoint, report])
    assert keys_of(storage) == [report]


def test_a_walk_goes_on_where_the_one_before_stopped(database):
    storage = open_memory()
    keys = [f"masks/{number:064x}"[:8] + f"/{number:064x}.png" for number in range(STEP_OBJECTS + 10)]
    put_all(storage, keys)
    options = {
        "database": database,
        "storage": storage,
        "bucket": "b",
        "grace": NO_GRACE,
        "owner": "test",
        "stop_after_s": 0,
    }

    first = collect(**options)
    left = keys_of(storage)
    second = collect(**options)

    assert (first.is_finished, first.deleted_objects, len(left)) == (False, STEP_OBJECTS, 10)
    assert (second.is_finished, second.deleted_objects) == (True, 10)
    assert keys_of(storage) == []
    with database.transaction() as session:
        assert session.scalars(select(ObjectCollection.deleted_objects)).all() == [STEP_OBJECTS + 10]


def test_of_two_collectors_one_works_and_a_dead_one_is_followed_when_its_lease_has_run_out(
    storage, database, collect_now
):
    put_all(storage, ORPHANS)
    with database.transaction() as session:
        session.execute(
            text(
                "INSERT INTO object_collections (lease_owner, lease_token, lease_expires_at)"
                " VALUES ('other', 1, now() + interval '1 minute')"
            )
        )

    with pytest.raises(CollectionRunning):
        collect_now()
    untouched = keys_of(storage)
    with database.transaction() as session:
        session.execute(text("UPDATE object_collections SET lease_expires_at = now()"))
    collect_now()

    assert untouched == sorted(ORPHANS)
    assert keys_of(storage) == []


def test_a_walk_begins_when_its_time_has_come_and_not_before(storage, database, collect_now):
    first = collect_now(every=timedelta(hours=1))
    second = collect_now(every=timedelta(hours=1))
    with database.transaction() as session:
        session.execute(text("UPDATE object_collections SET started_at = now() - interval '61 minutes'"))
    third = collect_now(every=timedelta(hours=1))

    assert (first is not None, second, third is not None) == (True, None, True)


def test_uploads_in_parts_that_nobody_ended_are_aborted_below_our_prefixes(storage, s3, s3_client, collect_now):
    ours, foreign = f"objects/sha256/ab/{SHA}", "in/large.tif"
    for key in (ours, foreign):
        s3_client.create_multipart_upload(Bucket=s3.bucket, Key=key)
    uploads = Buckets(s3)

    too_young = uploads.abort_uploads("", before=datetime.now(UTC) - timedelta(hours=1))
    collect_now(uploads=uploads)

    left = s3_client.list_multipart_uploads(Bucket=s3.bucket).get("Uploads", [])
    assert too_young == 0
    assert [upload["Key"] for upload in left] == [foreign]
