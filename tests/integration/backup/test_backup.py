"""The rehearsal: a backup of a system that worked, restored into an empty stack, compared, and put to work there."""

from __future__ import annotations

import json

import psycopg
import pytest
import sqlalchemy
from pydantic import SecretStr
from sqlalchemy import text

from defectoscope.backup import create_backup, read_manifest, restore_database, restore_objects
from defectoscope.database import Base, Database, JobState, Split
from defectoscope.database.migrate import upgrade
from defectoscope.dataset import RevisionEntry, create_revision
from defectoscope.embedded.stack import EmbeddedStack
from defectoscope.errors.backup import BackupInvalid, DatabaseNotEmpty
from defectoscope.errors.storage import ObjectNotFound, StorageFault
from defectoscope.inspection.params import Overlays
from defectoscope.queue import MemoryQueue
from defectoscope.settings import DatabaseSettings, QueueSettings, StorageSettings
from defectoscope.storage import Buckets, S3Config, open_s3
from tests.images import draw_part, encode
from tests.integration.worker.bench import Bench
from worker.inspector import Inspector


@pytest.fixture
def bench(settings, database, storage, tmp_path):
    inspector = Inspector(settings)
    bench = Bench(settings=settings, database=database, queue=MemoryQueue(), storage=storage, inspector=inspector)
    bench.put_model_in_service(tmp_path)
    yield bench
    inspector.close()


@pytest.fixture
def worked(bench):
    """A system with labelled results, a failed image, an owed one and a dataset."""
    drawn = {f"{seed}.png": draw_part(seed=seed) for seed in range(4)}
    images = {name: encode(pixels, "PNG") for name, (pixels, _) in drawn.items()}
    labels = {name: encode(mask * 255, "PNG") for name, (_, mask) in drawn.items()}
    job_id = bench.submit(images | {"bad.png": b"no image"}, labels=labels, overlays=Overlays.ALL)
    bench.work(job_id)
    bench.submit({"owed.png": images["0.png"]}, threshold=0.7)
    with bench.database.transaction() as session:
        label_ids = session.execute(text("SELECT id FROM labels ORDER BY id")).scalars().all()
    create_revision(
        database=bench.database,
        storage=bench.storage,
        name="parts",
        entries=[
            RevisionEntry(label_id=label_id, name=f"{number}.png", split=Split.TRAIN if number else Split.VAL)
            for number, label_id in enumerate(label_ids)
        ],
    )
    return bench


@pytest.fixture
def back_up(worked, tmp_path):
    directory = tmp_path / "backup"

    def run(**changes):
        return create_backup(
            **{
                "database": worked.database,
                "storage": worked.storage,
                "bucket": worked.settings.storage.bucket,
                "directory": directory,
                **changes,
            }
        ), directory

    return run


@pytest.fixture
def empty_stack(make_data_dir):
    with EmbeddedStack(make_data_dir()) as connections:
        yield connections


def rows_of(url):
    """Every table, by name, as text."""
    conninfo = sqlalchemy.make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(conninfo) as connection:
        return {
            name: sorted(connection.execute(f'SELECT t::text FROM "{name}" AS t').fetchall())  # noqa: S608
            for name in Base.metadata.tables
        }


def test_a_backup_restored_into_an_empty_stack_is_the_same_system_and_goes_on_working(
    worked, back_up, empty_stack, tmp_path
):
    manifest, directory = back_up()
    before = rows_of(worked.settings.database.url.get_secret_value())
    config = S3Config(
        endpoint_url=empty_stack.s3_endpoint_url,
        region=empty_stack.s3_region,
        access_key=empty_stack.s3_access_key,
        secret_key=empty_stack.s3_secret_key,
        bucket=worked.settings.storage.bucket,
    )
    Buckets(config).ensure(config.bucket)
    storage = open_s3(config)

    put_back = restore_objects(storage=storage, bucket=config.bucket, directory=directory)
    restored = restore_database(database_url=empty_stack.database_url, directory=directory)

    assert rows_of(empty_stack.database_url) == before
    assert restored == manifest
    assert sum(table.rows for table in manifest.tables.values()) == sum(map(len, before.values()))
    keys = (directory / "objects.txt").read_text().splitlines()
    # Four originals, the one label they share, four masks and overlays, a model, a dataset.
    assert len(keys) == manifest.objects == put_back == 15
    assert [storage.get(key) for key in keys] == [worked.storage.get(key) for key in keys]
    assert restore_objects(storage=storage, bucket=config.bucket, directory=directory) == 0

    settings = worked.settings.model_copy(
        update={
            "database": DatabaseSettings(url=SecretStr(empty_stack.database_url)),
            "queue": QueueSettings(url=SecretStr(empty_stack.queue_url)),
            "storage": StorageSettings(
                endpoint_url=config.endpoint_url,
                region=config.region,
                access_key=config.access_key,
                secret_key=SecretStr(config.secret_key),
                bucket=config.bucket,
            ),
            "worker": worked.settings.worker.model_copy(update={"model_cache_dir": tmp_path / "other models"}),
        }
    )
    database, inspector = Database(empty_stack.database_url), Inspector(settings)
    there = Bench(settings=settings, database=database, queue=MemoryQueue(), storage=storage, inspector=inspector)
    pixels, _ = draw_part(seed=9)
    job_id = there.submit({"new.png": encode(pixels, "PNG")})
    there.work(job_id)
    result, _ = there.results(job_id)["new.png"]
    state = there.job(job_id).state
    inspector.close()
    database.close()

    assert state is JobState.SUCCEEDED
    assert result.id > max(int(row[0].strip("()").split(",")[0]) for row in before["results"])


def test_a_backup_is_restored_into_an_empty_database_only(worked, back_up, database_url):
    _, directory = back_up()
    upgrade(database_url)
    restore_database(database_url=database_url, directory=directory)

    with pytest.raises(DatabaseNotEmpty):
        restore_database(database_url=database_url, directory=directory)

    assert rows_of(database_url) == rows_of(worked.settings.database.url.get_secret_value())


def test_a_backup_that_was_not_finished_or_was_altered_is_refused(back_up, database_url):
    _, directory = back_up()
    rows = directory / "tables" / "results.copy"
    whole = rows.read_bytes()

    rows.write_bytes(whole[:-1])
    with pytest.raises(BackupInvalid, match="results"):
        restore_database(database_url=database_url, directory=directory)
    (directory / "manifest.json").unlink()
    with pytest.raises(BackupInvalid, match=r"manifest\.json"):
        read_manifest(directory)


def test_a_list_of_objects_that_leads_elsewhere_is_refused(back_up, storage, s3):
    _, directory = back_up()
    (directory / "objects.txt").write_text("../../secrets\n")

    with pytest.raises(BackupInvalid):
        restore_objects(storage=storage, bucket=s3.bucket, directory=directory)


def test_a_backup_goes_into_a_new_directory(back_up):
    _, directory = back_up()
    first = (directory / "manifest.json").read_text()

    with pytest.raises(BackupInvalid, match="new directory"):
        back_up()

    assert (directory / "manifest.json").read_text() == first


def test_a_missing_object_fails_the_backup_and_a_promised_one_does_not(worked, back_up, tmp_path):
    with worked.database.transaction() as session:
        mask_key = session.execute(text("SELECT mask_key FROM results LIMIT 1")).scalar_one()
        promised = f"objects/sha256/ab/{'ab' * 32}"
        session.execute(
            text("UPDATE job_items SET source_uri = :uri WHERE name = 'owed.png'"), {"uri": worked.uri(promised)}
        )
    manifest, _ = back_up()
    mask = worked.storage.get(mask_key)

    worked.storage.put(mask_key, b"other bytes", content_type="image/png")
    with pytest.raises(StorageFault):
        back_up(directory=tmp_path / "second")
    worked.storage.delete([mask_key])
    with pytest.raises(ObjectNotFound):
        back_up(directory=tmp_path / "third")

    assert mask
    assert manifest.gone == (promised,)
    assert not (tmp_path / "third" / "manifest.json").exists()
    assert json.loads((tmp_path / "backup" / "manifest.json").read_text())["gone"] == [promised]
