"""One contract, three storages: memory, a local directory and a real S3 server."""

from __future__ import annotations

import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from defectoscope.errors.api import InvalidRequest
from defectoscope.errors.images import SourceChanged
from defectoscope.errors.storage import InvalidStorageKey, ObjectNotFound, ObjectTooLarge
from defectoscope.storage.content import content_key, put_content
from defectoscope.storage.open import open_local

PNG = "image/png"

# Names whose order by bytes and order by folders differ: '-' and '.' sort before '/'.
AWKWARD_KEYS = [
    "B",
    "Z/1",
    "a-b",
    "a-b-c/1",
    "a.b",
    "a/x",
    "a/y-1",
    "a/y/z",
    "a0",
    "ab/1",
    "b/c",
    "lot-1.txt",
    "lot-1/a",
    "lot-10/a",
    "lot 1/a",
    "é/1",
    "日本/1",
]


def fill(storage, keys):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: storage.put(key, b"x", content_type=PNG), keys))


def keys_of(infos):
    return [info.key for info in infos]


def test_what_is_put_can_be_read(storage):
    storage.put("images/1.png", b"\x00\xffbytes", content_type=PNG)

    assert storage.get("images/1.png") == b"\x00\xffbytes"


def test_an_empty_object_is_an_object(storage, tmp_path):
    storage.put("empty", b"", content_type=PNG)

    written_bytes = storage.get_to_file("empty", tmp_path / "out")

    assert storage.get("empty") == b""
    assert written_bytes == 0
    assert (tmp_path / "out").read_bytes() == b""
    assert keys_of(storage.list()) == ["empty"]


@pytest.mark.parametrize(
    "read",
    [
        pytest.param(lambda storage, _: storage.get("absent"), id="get"),
        pytest.param(lambda storage, _: storage.get("absent", if_match='"x"'), id="get-if-match"),
        pytest.param(lambda storage, path: storage.get_to_file("absent", path), id="get-to-file"),
        pytest.param(lambda storage, _: storage.head("absent"), id="head"),
    ],
)
def test_a_missing_object_is_named(storage, tmp_path, read):
    with pytest.raises(ObjectNotFound) as caught:
        read(storage, tmp_path / "out")

    assert caught.value.details["key"] == "absent"
    assert list(tmp_path.glob("*out*")) == []


def test_a_second_put_replaces_the_first(storage):
    storage.put("key", b"old content", content_type=PNG)

    storage.put("key", b"new", content_type=PNG)

    assert storage.get("key") == b"new"
    assert storage.head("key").size_bytes == 3


def test_head_tells_size_etag_and_time(storage):
    storage.put("a/key", b"12345", content_type=PNG)

    info = storage.head("a/key")

    assert (info.key, info.size_bytes) == ("a/key", 5)
    assert info.etag
    assert info.modified_at.tzinfo is UTC
    assert abs(datetime.now(UTC) - info.modified_at) < timedelta(minutes=1)


def test_a_listed_object_is_described_as_head_does(storage):
    storage.put("a/key", b"12345", content_type=PNG)

    listed = list(storage.list())

    assert [(info.key, info.size_bytes, info.etag) for info in listed] == [("a/key", 5, storage.head("a/key").etag)]


def test_exists_is_true_only_for_what_is_there(storage):
    storage.put("there/1", b"x", content_type=PNG)

    answers = [storage.exists(key) for key in ("there/1", "there", "there/2")]

    assert answers == [True, False, False]


def test_put_if_absent_keeps_what_is_there(storage):
    answers = [storage.put_if_absent("key", data, content_type=PNG) for data in (b"first", b"second")]

    assert answers == [True, False]
    assert storage.get("key") == b"first"


def test_of_eight_racing_writers_exactly_one_wins(storage):
    # SeaweedFS makes racing writers of one key wait for each other in steps of a second, so the turns are few.
    for turn in range(4):
        barrier = threading.Barrier(8)

        def write(number, turn=turn, barrier=barrier):
            barrier.wait()
            return storage.put_if_absent(f"race/{turn}", f"writer {number}".encode(), content_type=PNG)

        with ThreadPoolExecutor(8) as pool:
            won = list(pool.map(write, range(8)))

        assert won.count(True) == 1
        assert storage.get(f"race/{turn}") == f"writer {won.index(True)}".encode()


def test_a_read_bound_to_an_etag_gives_the_object_while_it_is_unchanged(storage):
    storage.put("key", b"seen", content_type=PNG)
    etag = storage.head("key").etag

    assert storage.get("key", if_match=etag) == b"seen"


def test_a_read_bound_to_an_etag_fails_once_the_object_changed(storage):
    storage.put("key", b"seen", content_type=PNG)
    etag = storage.head("key").etag
    storage.put("key", b"sean", content_type=PNG)

    with pytest.raises(SourceChanged) as caught:
        storage.get("key", if_match=etag)

    assert caught.value.details["key"] == "key"


@pytest.mark.parametrize(
    "key",
    [
        "with space/ü ñ.png",
        "日本/写真 1.png",
        "emoji 😀",
        "combining e\u0301",
        "100%/a%20b%2Fc",
        "a+b&c=d;e,f",
        "a#b?c=d",
        "quote'\"<tag>",
        "[x]{y}|z^`~*!$@()",
        ".hidden/..double/dots...",
        " leading and trailing ",
    ],
)
def test_unusual_characters_survive_writing_listing_and_deleting(storage, key):
    storage.put(key, b"v", content_type=PNG)

    assert storage.get(key) == b"v"
    assert keys_of(storage.list()) == [key]
    storage.delete([key])
    assert keys_of(storage.list()) == []


@pytest.mark.parametrize(
    "key",
    [
        pytest.param("", id="empty"),
        pytest.param("/absolute", id="leading-slash"),
        pytest.param("folder/", id="trailing-slash"),
        pytest.param("a//b", id="empty-segment"),
        pytest.param("..", id="parent"),
        pytest.param("a/../b", id="parent-inside"),
        pytest.param("a/./b", id="dot"),
        pytest.param("a\\..\\b", id="backslash"),
        pytest.param("a\nb", id="newline"),
        pytest.param("a\x00b", id="nul"),
        pytest.param("a\x85b", id="c1-control"),
        pytest.param("a\ud800b", id="surrogate"),
        pytest.param("é" * 513, id="too-long"),
    ],
)
@pytest.mark.parametrize(
    "use",
    [
        pytest.param(lambda storage, key, _: storage.get(key), id="get"),
        pytest.param(lambda storage, key, path: storage.get_to_file(key, path), id="get-to-file"),
        pytest.param(lambda storage, key, _: storage.put(key, b"x", content_type=PNG), id="put"),
        pytest.param(lambda storage, key, path: storage.put_file(key, path, content_type=PNG), id="put-file"),
        pytest.param(lambda storage, key, _: storage.put_if_absent(key, b"x", content_type=PNG), id="put-if-absent"),
        pytest.param(lambda storage, key, _: storage.head(key), id="head"),
        pytest.param(lambda storage, key, _: storage.exists(key), id="exists"),
        pytest.param(lambda storage, key, _: storage.delete([key]), id="delete"),
    ],
)
def test_a_key_outside_the_rules_is_refused_everywhere(tmp_path, key, use):
    storage = open_local(tmp_path / "storage")
    source = tmp_path / "source"
    source.write_bytes(b"x")

    with pytest.raises(InvalidStorageKey):
        use(storage, key, source)

    assert list((tmp_path / "storage").iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source", "storage"]


def test_a_prefix_outside_the_rules_is_refused(storage):
    with pytest.raises(InvalidStorageKey):
        list(storage.list("../other"))
    with pytest.raises(InvalidStorageKey):
        list(storage.list(start_after="a\n"))


def test_keys_are_listed_in_the_order_of_their_characters(storage):
    fill(storage, AWKWARD_KEYS)

    assert keys_of(storage.list()) == sorted(AWKWARD_KEYS)


@pytest.mark.parametrize(
    "start_after", [*AWKWARD_KEYS, "a", "a/", "a/xx", "a/y", "lot", "lot-", "lot-1", "zzz", "!", ".", ".."]
)
def test_a_listing_goes_on_after_any_text(storage, start_after):
    fill(storage, AWKWARD_KEYS)

    assert keys_of(storage.list(start_after=start_after)) == [key for key in sorted(AWKWARD_KEYS) if key > start_after]


@pytest.mark.parametrize("prefix", ["", "a", "a/", "a/y", "a-", "ab/1", "lot", "lot-1", "lot-1/", "lot ", "é", "none"])
def test_a_prefix_is_plain_text(storage, prefix):
    fill(storage, AWKWARD_KEYS)

    assert keys_of(storage.list(prefix)) == [key for key in sorted(AWKWARD_KEYS) if key.startswith(prefix)]


def test_prefix_and_start_after_bound_a_listing_together(storage):
    fill(storage, AWKWARD_KEYS)

    assert keys_of(storage.list("a/", start_after="a/x")) == ["a/y-1", "a/y/z"]
    assert keys_of(storage.list("a/", start_after="lot")) == []
    assert keys_of(storage.list("lot-1", start_after="a")) == ["lot-1.txt", "lot-1/a", "lot-10/a"]


def test_2500_keys_are_listed_resumed_and_deleted(storage):
    keys = sorted([f"big/{number:04}.png" for number in range(2500)] + ["big-sister", "big.txt", "big0", "a"])
    fill(storage, keys)

    everything = keys_of(storage.list())
    rest = keys_of(storage.list("big/", start_after="big/1777.png"))
    storage.delete(key for key in keys if key.startswith("big/"))

    assert everything == keys
    assert rest == [f"big/{number:04}.png" for number in range(1778, 2500)]
    assert keys_of(storage.list()) == ["a", "big-sister", "big.txt", "big0"]


def test_deleting_what_is_absent_is_no_error_and_spares_nothing_else(storage):
    fill(storage, ["a", "b/1", "b/2"])

    storage.delete(["absent", "a", "b/absent", "b/1"])
    storage.delete(["a"])
    storage.delete([])

    assert keys_of(storage.list()) == ["b/2"]


@pytest.mark.parametrize("size_bytes", [0, 1, 5 * 1024 * 1024, 5 * 1024 * 1024 + 1, 17_000_000])
def test_a_file_goes_up_and_comes_down_unchanged(storage, random_file, tmp_path, size_bytes):
    source = random_file(size_bytes)
    target = tmp_path / "target.bin"
    target.write_bytes(b"what was there before")

    storage.put_file("models/1.onnx", source, content_type="application/octet-stream")
    written_bytes = storage.get_to_file("models/1.onnx", target)

    assert written_bytes == size_bytes
    assert hashlib.sha256(target.read_bytes()).digest() == hashlib.sha256(source.read_bytes()).digest()


def test_a_missing_source_file_is_not_taken_for_a_missing_object(storage, tmp_path):
    with pytest.raises(FileNotFoundError):
        storage.put_file("key", tmp_path / "absent", content_type=PNG)

    assert not storage.exists("key")


def test_an_object_above_the_limit_is_not_downloaded(storage, tmp_path):
    storage.put("key", b"12345", content_type=PNG)

    with pytest.raises(ObjectTooLarge) as caught:
        storage.get_to_file("key", tmp_path / "out", max_bytes=4)

    assert caught.value.details["size_bytes"] == 5
    assert not (tmp_path / "out").exists()
    assert storage.get_to_file("key", tmp_path / "out", max_bytes=5) == 5


@pytest.mark.parametrize("content_type", ["", "image", "image/png\nX-Evil: 1", "bild/grö\u00dfe"])
def test_a_media_type_that_is_none_is_refused(storage, content_type):
    with pytest.raises(InvalidRequest):
        storage.put("key", b"x", content_type=content_type)
    with pytest.raises(InvalidRequest):
        storage.put_if_absent("key", b"x", content_type=content_type)

    assert not storage.exists("key")


@pytest.mark.parametrize("etag", ["", "a b", '"x"\n'])
def test_an_etag_that_is_none_is_refused(storage, etag):
    storage.put("key", b"x", content_type=PNG)

    with pytest.raises(InvalidRequest):
        storage.get("key", if_match=etag)


def test_equal_content_is_stored_once(storage):
    hashes = [put_content(storage, data, content_type=PNG) for data in (b"one", b"two", b"one")]

    assert hashes[0] == hashes[2] == hashlib.sha256(b"one").hexdigest()
    assert keys_of(storage.list()) == sorted(content_key(sha256) for sha256 in set(hashes))
    assert storage.get(content_key(hashes[1])) == b"two"


def test_threads_share_one_storage(storage):
    def write_and_read(number):
        storage.put(f"shared/{number:03}", str(number).encode(), content_type=PNG)
        return int(storage.get(f"shared/{number:03}"))

    with ThreadPoolExecutor(16) as pool:
        numbers = list(pool.map(write_and_read, range(200)))

    assert numbers == list(range(200))
