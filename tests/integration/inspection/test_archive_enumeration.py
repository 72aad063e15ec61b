from __future__ import annotations

import hashlib
import struct
import tracemalloc
import zipfile
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from defectoscope.database import ItemState, JobState
from defectoscope.errors.archives import ArchiveInvalid, ArchiveMemberUnsafe
from defectoscope.inspection.archives import PAGE_SIZE, ArchiveLimits, list_archive
from defectoscope.inspection.sources import Archive, InputBuckets
from defectoscope.storage import content_key, open_local
from tests.integration.inspection.stores import (
    LIMITS,
    OWN,
    declare_size,
    link,
    make_zip,
    mark_encrypted,
    memory_buckets,
    no_bucket,
    of_kind,
    patch_central,
    run_enumeration,
    submit_archive,
)


def _enumerate(scene, data, *, limits=LIMITS):
    buckets = memory_buckets()
    job_id = submit_archive(scene, buckets, data)
    run_enumeration(scene, buckets, job_id, limits=limits)
    return job_id, buckets


def _address(data):
    return f"s3://{OWN}/{content_key(hashlib.sha256(data).hexdigest())}"


def test_every_image_is_stored_under_its_hash_with_its_label(scene):
    members = [
        ("images/", b""),
        ("images/train/a.jpg", b"picture a"),
        ("labels/train/a.png", b"label a"),
        ("images/train/b.jpg", b"picture b"),
        ("labels/train/notes.txt", b"text"),
        ("__MACOSX/images/._a.jpg", b"resource fork"),
        ("readme.md", b"text"),
    ]

    job_id, buckets = _enumerate(scene, make_zip(members))

    items = {item.name: item for item in scene.items(job_id)}
    assert set(items) == {"images/train/a.jpg", "images/train/b.jpg"}
    assert items["images/train/a.jpg"].source_uri == _address(b"picture a")
    assert items["images/train/a.jpg"].label_uri == _address(b"label a")
    assert items["images/train/b.jpg"].label_uri is None
    assert buckets.read(_address(b"picture b"), max_bytes=100) == b"picture b"


@pytest.mark.parametrize(
    "member",
    [
        pytest.param(("../evil.png", b"x"), id="escaping"),
        pytest.param(("a/../../evil.png", b"x"), id="escaping-within"),
        pytest.param(("..\\evil.png", b"x"), id="escaping-by-backslash"),
        pytest.param(("/etc/evil.png", b"x"), id="absolute"),
        pytest.param(("C:/evil.png", b"x"), id="drive"),
        pytest.param(("../../etc/passwd", b"x"), id="escaping-and-no-image"),
        pytest.param(link("evil.png", "/etc/passwd"), id="link"),
        pytest.param(of_kind("evil.png", 0o020666), id="device"),
        pytest.param(of_kind("evil.png", 0o010666), id="pipe"),
        pytest.param(("inner.zip", make_zip([("a.png", b"x")])), id="nested"),
        pytest.param(("inner.tar.GZ", b"x"), id="nested-upper-case"),
    ],
)
def test_an_unsafe_member_is_named_and_the_others_go_on(scene, member):
    job_id, buckets = _enumerate(scene, make_zip([("good.png", b"good"), member]))

    good, evil = scene.items(job_id)
    assert (good.name, good.state) == ("good.png", ItemState.PENDING)
    assert (evil.state, evil.error_code) == (ItemState.FAILED, "archive_member_unsafe")
    assert evil.source_uri == ""
    assert [info.key for info in buckets.own.list("objects/")] == [content_key(hashlib.sha256(b"good").hexdigest())]
    scene.finish(*scene.owed(job_id))
    assert scene.job(job_id).state is JobState.PARTIAL


def test_an_encrypted_member_is_named_and_the_others_go_on(scene):
    data = mark_encrypted(make_zip([("good.png", b"good"), ("secret.png", b"secret")]), "secret.png")

    job_id, _ = _enumerate(scene, data)

    assert {item.name: item.error_code for item in scene.items(job_id)} == {
        "good.png": None,
        "secret.png": "archive_member_unsafe",
    }


@pytest.mark.parametrize("label", [link("labels/a.png", "/etc/passwd"), ("labels/a.png", bytes(2_000_000))])
def test_a_label_that_cannot_be_read_spares_its_image(scene, label):
    job_id, _ = _enumerate(scene, make_zip([("images/a.png", b"good"), label]))
    scene.finish(*scene.owed(job_id))

    (item,) = scene.items(job_id)
    assert (item.state, item.label_uri) == (ItemState.SUCCEEDED, None)
    assert item.label_error_code in {"archive_member_unsafe", "archive_too_large"}
    assert scene.job(job_id).state is JobState.PARTIAL


def test_a_member_of_ten_gigabytes_of_zeros_is_refused_by_what_it_declares(scene):
    data = make_zip([("good.png", b"good"), ("bomb.png", bytes(100_000))])

    job_id, _ = _enumerate(scene, declare_size(data, "bomb.png", 2**32 - 2))

    assert {item.name: item.error_code for item in scene.items(job_id)} == {
        "good.png": None,
        "bomb.png": "archive_too_large",
    }


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_header_that_lies_about_a_bomb_unpacks_no_more_than_it_said(scene, method):
    bomb = declare_size(make_zip([("bomb.png", bytes(100_000_000))], method=method), "bomb.png", 10)
    buckets = memory_buckets()
    job_id = submit_archive(scene, buckets, bomb)

    tracemalloc.start()
    run_enumeration(scene, buckets, job_id)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert [item.error_code for item in scene.items(job_id)] == ["archive_invalid"]
    assert peak_bytes < 5_000_000


def test_memory_does_not_grow_with_the_archive(scene, tmp_path):
    data = make_zip([(f"{number:03}.png", bytes([number]) * 900_000) for number in range(60)])
    buckets = InputBuckets(own_name=OWN, own=open_local(tmp_path), open_bucket=no_bucket)
    job_id = submit_archive(scene, buckets, data)

    tracemalloc.start()
    run_enumeration(scene, buckets, job_id, limits=replace(LIMITS, max_total_bytes=100_000_000))
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert len(scene.items(job_id)) == 60
    assert peak_bytes < 15_000_000


def test_members_beyond_the_limit_of_the_whole_are_refused_even_after_a_restart(scene):
    data = make_zip([(f"{number}.png", bytes(900)) for number in range(5)])
    buckets = memory_buckets()
    submit_archive(scene, buckets, data)
    limits = replace(LIMITS, max_total_bytes=3_000)
    source = Archive(uri=f"s3://{OWN}/upload.zip")

    (whole,) = list_archive(source, buckets=buckets, limits=limits)
    (resumed,) = list_archive(source, buckets=buckets, limits=limits, after="0")

    codes = [image.error.code if image.error else None for image in whole.images]
    assert codes == [None, None, None, "archive_too_large", "archive_too_large"]
    assert [image.error is None for image in resumed.images] == [True, True, False, False]


def test_pages_are_resumed_after_the_last_member_that_was_recorded(scene):
    count = 2 * PAGE_SIZE + 3
    buckets = memory_buckets()
    submit_archive(scene, buckets, make_zip([(f"{number:04}.png", b"%d" % number) for number in range(count)]))
    source = Archive(uri=f"s3://{OWN}/upload.zip")

    pages = list(list_archive(source, buckets=buckets, limits=LIMITS))
    resumed = list(list_archive(source, buckets=buckets, limits=LIMITS, after=pages[0].cursor))

    assert [len(page.images) for page in pages] == [PAGE_SIZE, PAGE_SIZE, 3]
    assert [page.images for page in resumed] == [page.images for page in pages[1:]]
    assert [page.cursor for page in pages] == [str(PAGE_SIZE - 1), str(2 * PAGE_SIZE - 1), None]


def test_of_members_of_one_name_the_last_is_taken_as_unzip_does(scene):
    with pytest.warns(UserWarning, match="Duplicate name"):
        data = make_zip([("a.png", b"first"), ("a.png", b"second")])

    job_id, _ = _enumerate(scene, data)

    assert [item.source_uri for item in scene.items(job_id)] == [_address(b"second")]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        pytest.param(b"", "archive_invalid", id="empty"),
        pytest.param(b"\x89PNG\r\n\x1a\n" + bytes(100), "archive_invalid", id="not-a-zip"),
        pytest.param(make_zip([("a.png", b"x" * 1000)])[:-10], "archive_invalid", id="cut"),
        pytest.param(make_zip([]), "no_images_found", id="nothing-in-it"),
        pytest.param(make_zip([("readme.md", b"x")]), "no_images_found", id="no-images"),
        pytest.param(make_zip([(f"{n}.png", b"") for n in range(1001)]), "archive_too_large", id="too-many"),
        pytest.param(make_zip([("x" * 5000 + ".png", b"x")]), "archive_invalid", id="overlong-name"),
    ],
)
def test_an_archive_that_cannot_be_read_ends_the_job_with_its_error(scene, data, code):
    job_id, _ = _enumerate(scene, data)

    assert (scene.job(job_id).state, scene.job(job_id).error_code) == (JobState.FAILED, code)


def test_a_small_archive_may_unpack_to_a_gigabyte_and_beyond_that_to_so_many_times_its_size(scene):
    data = make_zip([(f"{number}.png", bytes([number]) * 5000) for number in range(4)], method=zipfile.ZIP_STORED)
    for number in range(4):
        data = declare_size(data, f"{number}.png", 500_000_000)
    limits = ArchiveLimits(max_members=10, max_member_bytes=10**9, max_total_bytes=10**10)

    suspicious, _ = _enumerate(scene, data, limits=limits)
    allowed, _ = _enumerate(scene, data, limits=replace(limits, max_ratio=10**6))

    # Members are smaller than they say here; beyond the allowance none is read.
    assert [item.error_code for item in scene.items(suspicious)] == [None] * 2 + ["archive_too_large"] * 2
    assert [item.error_code for item in scene.items(allowed)] == [None] * 4


def test_members_that_overlap_are_an_invalid_archive(scene):
    data = make_zip([("a.png", b"x" * 1000), ("b.png", b"x" * 1000)], method=zipfile.ZIP_STORED)
    data = patch_central(data, "b.png", offset=20, value=struct.pack("<I", 5000))

    job_id, _ = _enumerate(scene, data)

    assert scene.job(job_id).error_code == "archive_invalid"


@pytest.mark.parametrize("has_64_bit_sizes", [False, True])
def test_a_directory_of_a_million_entries_is_refused_before_it_fills_the_memory(scene, tmp_path, has_64_bit_sizes):
    entry = b"PK\x01\x02" + bytes(42)
    directory = entry * 1_000_000
    end = struct.pack("<4s4HIIH", b"PK\x05\x06", 0, 0, 1, 1, len(directory), 0, 0)
    end_64 = struct.pack("<4sQ2H2I4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 1, 1, len(directory), 0)
    locator = struct.pack("<4sIQI", b"PK\x06\x07", 0, len(directory), 1)
    data = directory + (end_64 + locator if has_64_bit_sizes else b"") + end
    buckets = InputBuckets(own_name=OWN, own=open_local(tmp_path), open_bucket=no_bucket)
    job_id = submit_archive(scene, buckets, data)

    tracemalloc.start()
    run_enumeration(scene, buckets, job_id, limits=replace(LIMITS, max_total_bytes=100_000_000))
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert scene.job(job_id).error_code == "archive_too_large"
    assert peak_bytes < 20_000_000


def test_an_archive_larger_than_what_it_may_unpack_to_is_not_fetched(scene):
    data = make_zip([("a.png", bytes(5000))], method=zipfile.ZIP_STORED)

    job_id, _ = _enumerate(scene, data, limits=replace(LIMITS, max_total_bytes=1000))

    assert scene.job(job_id).error_code == "object_too_large"


def test_an_archive_that_is_missing_ends_the_job_with_its_error(scene):
    buckets = memory_buckets()
    job_id = submit_archive(scene, buckets, b"x")
    buckets.own.delete(["upload.zip"])

    run_enumeration(scene, buckets, job_id)

    assert scene.job(job_id).error_code == "object_not_found"


_SOUND = make_zip([("images/a.png", b"some bytes" * 30), ("labels/a.png", b"other bytes" * 30), ("b.png", b"short")])


@example(flips=[(265, 0)], cut=0)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    flips=st.lists(st.tuples(st.integers(0, len(_SOUND) - 1), st.integers(0, 255)), min_size=1, max_size=4),
    cut=st.integers(0, 60),
)
def test_a_damaged_archive_fails_by_name_or_by_member_and_in_no_other_way(flips, cut):
    data = bytearray(_SOUND)
    for position, value in flips:
        data[position] = value
    buckets = memory_buckets()
    buckets.own.put("upload.zip", bytes(data[: len(data) - cut]), content_type="application/zip")

    try:
        pages = list(list_archive(Archive(uri=f"s3://{OWN}/upload.zip"), buckets=buckets, limits=LIMITS))
    except (ArchiveInvalid, ArchiveMemberUnsafe):
        return

    assert pages[-1].cursor is None
    assert all(image.uri or image.error for page in pages for image in page.images)
