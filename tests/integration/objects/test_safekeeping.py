"""Nothing is deleted that somebody points at a moment later: the agreement between writers and the collector."""

from __future__ import annotations

import random
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import select, text

from defectoscope.database import Database, Image, ObjectLease
from defectoscope.errors.storage import ObjectsBeingDeleted
from defectoscope.inspection.images import ImageFacts, register_images
from defectoscope.objects import collect, confirm_stored, keeping_all, lease_objects, own_key
from defectoscope.storage import content_key, open_memory, put_content
from tests.integration.objects.conftest import NO_GRACE

SHA = "cd" * 32
KEY = content_key(SHA)

#: How the key stands among the condemned; whether it is stored; whether a writer may point at it.
STATES = {
    "never-condemned": (None, True, True),
    "being-deleted": ("now(), NULL", True, False),
    "being-deleted-and-gone": ("now(), NULL", False, False),
    "deleted-and-gone": ("now(), now()", False, False),
    "deleted-and-stored-again": ("now(), now()", True, True),
    "its-collector-died-long-ago-and-it-is-there": ("now() - interval '3 minutes', NULL", True, True),
    "its-collector-died-long-ago-and-it-is-gone": ("now() - interval '3 minutes', NULL", False, False),
}


def condemn(database, moments):
    if moments is not None:
        with database.transaction() as session:
            statement = f"INSERT INTO condemned_objects VALUES (:key, {moments})"  # noqa: S608 -- a constant
            session.execute(text(statement), {"key": KEY})


@pytest.mark.parametrize(("moments", "is_stored", "is_allowed"), STATES.values(), ids=STATES.keys())
def test_a_writer_may_point_at_what_is_there_and_stays(database, storage, moments, is_stored, is_allowed):
    condemn(database, moments)
    if is_stored:
        storage.put(KEY, b"x", content_type="text/plain")
    refused = None

    try:
        with database.transaction() as session:
            confirm_stored(session, storage, [KEY, "in/foreign.png"])
    except ObjectsBeingDeleted as exc:
        refused = exc

    assert (refused is None) is is_allowed
    assert refused is None or refused.details["keys"] == [KEY]


def test_nothing_that_a_row_points_at_is_lost_while_writers_and_collectors_work_on_the_same_keys(migrated_url):
    database = Database(migrated_url, pool_size=10)
    storage = open_memory()
    contents = [f"content {number}".encode() for number in range(3)]
    ends_at_s = time.monotonic() + 6
    counts = {"written": 0, "again": 0, "missing": 0}

    def write(seed):
        # As a worker does: store, write the row, ask; begin again when told to. Then look, and forget the row.
        luck = random.Random(seed)  # noqa: S311 -- nothing secret
        while time.monotonic() < ends_at_s:
            data = luck.choice(contents)
            sha256 = put_content(storage, data, content_type="text/plain")
            time.sleep(luck.random() * 0.004)
            try:
                with database.transaction() as session:
                    register_images(session, [facts(sha256)])
                    confirm_stored(session, storage, [content_key(sha256)])
            except ObjectsBeingDeleted:
                counts["again"] += 1
                continue
            counts["written"] += 1
            time.sleep(luck.random() * 0.01)
            with database.transaction() as session:
                still_mine = session.scalars(select(Image).where(Image.sha256 == sha256).with_for_update()).all()
                counts["missing"] += bool(still_mine) and not storage.exists(content_key(sha256))
                for image in still_mine:
                    session.delete(image)

    def collect_again_and_again():
        while time.monotonic() < ends_at_s:
            collect(database=database, storage=storage, bucket="b", grace=NO_GRACE, owner="test")

    with ThreadPoolExecutor(4) as threads:
        work = [threads.submit(write, seed) for seed in range(3)]
        work.append(threads.submit(collect_again_and_again))
        for one in work:
            one.result()
    database.close()

    assert counts["missing"] == 0
    assert counts["written"] > 50
    assert counts["again"] > 0


def facts(sha256):
    return ImageFacts(
        sha256=sha256,
        key=content_key(sha256),
        size_bytes=1,
        width=1,
        height=1,
        format="PNG",
        source_mode="RGB",
        source_uri="s3://b/a",
    )


def test_a_lease_lasts_as_long_as_the_longest_that_was_asked_for(database):
    for hours in (2, 1):
        with database.transaction() as session:
            lease_objects(session, [KEY], lasts=timedelta(hours=hours))

    with database.transaction() as session:
        left_s = session.scalar(
            select(text("extract(epoch FROM expires_at - now())")).select_from(ObjectLease.__table__)
        )
    assert float(left_s) == pytest.approx(7200, abs=60)


def test_a_key_that_is_being_deleted_cannot_be_leased(database):
    condemn(database, "now(), NULL")

    with pytest.raises(ObjectsBeingDeleted), database.transaction() as session:
        lease_objects(session, [KEY], lasts=timedelta(hours=1))


def test_a_backup_keeps_the_collector_from_deleting_for_as_long_as_it_lasts(database, storage, collect_now):
    storage.put(KEY, b"x", content_type="text/plain")

    with keeping_all(database):
        meanwhile = collect_now()
        kept = storage.exists(KEY)
    collect_now()

    assert (meanwhile.is_finished, meanwhile.deleted_objects, kept) == (True, 0, True)
    assert storage.exists(KEY) is False


def test_only_addresses_of_what_the_system_wrote_have_a_key():
    assert own_key(f"s3://own/{KEY}", bucket="own") == KEY
    assert own_key(f"s3://other/{KEY}", bucket="own") is None
    assert own_key("s3://own/in/a.png", bucket="own") is None
