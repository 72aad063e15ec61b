"""The bounded cache: right bytes always, never more than its bound, shared by threads and processes, self-mending."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from defectoscope.errors.storage import DiskFull, InvalidStorageKey, ObjectNotFound, StorageFault
from defectoscope.storage import content_key, open_local, open_memory, put_content
from tests.unit.trainer.cache_reader import read_over_and_over
from trainer.cache import FileCache

BLOCK = 4096


@pytest.fixture
def storage():
    return open_memory()


def _store(storage, number, *, size=BLOCK):
    data = bytes([number]) * size
    return put_content(storage, data, content_type="image/png"), data


def _read(cache, sha256):
    return cache.read(content_key(sha256), sha256)


def _kept(directory):
    return {path.name for path in directory.iterdir() if path.name != ".usage"}


def _disk_bytes(directory):
    return sum(-(-path.stat().st_size // BLOCK) * BLOCK for path in directory.iterdir() if path.name != ".usage")


def test_an_object_is_fetched_once_and_kept_under_its_hash(storage, tmp_path):
    sha256, data = _store(storage, 1)
    cache = FileCache(tmp_path / "cache", max_bytes=10 * BLOCK, open_storage=lambda: storage)

    first = _read(cache, sha256)
    storage.delete([content_key(sha256)])
    second = _read(cache, sha256)

    assert first == second == data
    assert _kept(tmp_path / "cache") == {sha256}


def test_what_an_earlier_run_fetched_is_not_fetched_again(storage, tmp_path):
    sha256, data = _store(storage, 1)
    _read(FileCache(tmp_path, max_bytes=10 * BLOCK, open_storage=lambda: storage), sha256)

    again = _read(FileCache(tmp_path, max_bytes=10 * BLOCK, open_storage=open_memory), sha256)

    assert again == data


def test_what_was_used_longest_ago_makes_room(storage, tmp_path):
    stored = [_store(storage, number)[0] for number in range(4)]
    cache = FileCache(tmp_path, max_bytes=3 * BLOCK, open_storage=lambda: storage)

    for sha256 in (stored[0], stored[1], stored[2], stored[0], stored[3]):
        _read(cache, sha256)

    assert _kept(tmp_path) == {stored[0], stored[2], stored[3]}


def test_a_set_larger_than_the_cache_is_read_over_and_over_within_the_bound(storage, tmp_path):
    stored = [_store(storage, number, size=BLOCK * (1 + number % 3)) for number in range(30)]
    cache = FileCache(tmp_path, max_bytes=12 * BLOCK, open_storage=lambda: storage)
    used = []

    for _ in range(3):
        for sha256, data in stored:
            assert _read(cache, sha256) == data
            used.append(_disk_bytes(tmp_path))

    assert max(used) <= 12 * BLOCK
    assert max(used) > 8 * BLOCK


def test_a_small_file_counts_as_the_block_it_takes(storage, tmp_path):
    stored = [_store(storage, number, size=10)[0] for number in range(5)]
    cache = FileCache(tmp_path, max_bytes=3 * BLOCK, open_storage=lambda: storage)

    for sha256 in stored:
        _read(cache, sha256)

    assert _kept(tmp_path) == set(stored[2:])


def test_a_file_larger_than_the_whole_cache_is_read_through_and_drives_nothing_out(storage, tmp_path):
    small, _ = _store(storage, 1)
    large, data = _store(storage, 2, size=3 * BLOCK)
    cache = FileCache(tmp_path, max_bytes=2 * BLOCK, open_storage=lambda: storage)
    _read(cache, small)

    found = _read(cache, large)

    assert found == data
    assert _kept(tmp_path) == {small}


def test_a_bound_of_nothing_keeps_nothing(storage, tmp_path):
    sha256, data = _store(storage, 1)

    found = _read(FileCache(tmp_path / "cache", max_bytes=0, open_storage=lambda: storage), sha256)

    assert found == data
    assert not (tmp_path / "cache").exists()


def test_files_of_an_earlier_larger_bound_make_room_too(storage, tmp_path):
    stored = [_store(storage, number)[0] for number in range(9)]
    larger = FileCache(tmp_path, max_bytes=20 * BLOCK, open_storage=lambda: storage)
    for sha256 in stored[:8]:
        _read(larger, sha256)

    _read(FileCache(tmp_path, max_bytes=2 * BLOCK, open_storage=lambda: storage), stored[8])

    assert _kept(tmp_path) == {stored[7], stored[8]}


def test_half_written_files_of_a_killed_process_are_swept(storage, tmp_path):
    sha256, _ = _store(storage, 1)
    for name in (f"{sha256}.partial", f"{'0' * 64}.4711.partial"):
        (tmp_path / name).write_bytes(b"half")

    _read(FileCache(tmp_path, max_bytes=BLOCK, open_storage=lambda: storage), sha256)

    assert _kept(tmp_path) == {sha256}


@pytest.mark.parametrize("damaged", [pytest.param(b"", id="empty"), pytest.param(b"\1" * 100, id="cut short")])
def test_a_damaged_file_is_fetched_again(storage, tmp_path, damaged):
    sha256, data = _store(storage, 1)
    cache = FileCache(tmp_path, max_bytes=BLOCK, open_storage=lambda: storage)
    _read(cache, sha256)
    (tmp_path / sha256).write_bytes(damaged)

    found = _read(cache, sha256)

    assert found == data
    assert (tmp_path / sha256).read_bytes() == data


def test_a_file_deleted_by_hand_is_fetched_again(storage, tmp_path):
    sha256, data = _store(storage, 1)
    cache = FileCache(tmp_path, max_bytes=BLOCK, open_storage=lambda: storage)
    _read(cache, sha256)
    (tmp_path / sha256).unlink()

    assert _read(cache, sha256) == data


def test_a_lost_count_is_made_again(storage, tmp_path):
    stored = [_store(storage, number)[0] for number in range(3)]
    cache = FileCache(tmp_path, max_bytes=2 * BLOCK, open_storage=lambda: storage)
    for sha256 in stored[:2]:
        _read(cache, sha256)
    (tmp_path / ".usage").write_bytes(b"")

    _read(cache, stored[2])

    assert _kept(tmp_path) == set(stored[1:])


def test_an_object_with_other_bytes_than_its_hash_is_refused_and_not_kept(storage, tmp_path):
    sha256, _ = _store(storage, 1)
    storage.put(content_key(sha256), b"something else", content_type="image/png")
    cache = FileCache(tmp_path / "cache", max_bytes=BLOCK, open_storage=lambda: storage)

    with pytest.raises(StorageFault, match="its hash differs"):
        _read(cache, sha256)

    assert not (tmp_path / "cache" / sha256).exists()


def test_a_missing_object_is_named(tmp_path):
    with pytest.raises(ObjectNotFound):
        _read(FileCache(tmp_path, max_bytes=BLOCK, open_storage=open_memory), "0" * 64)


def test_a_hash_that_is_none_leads_nowhere_on_the_disk(tmp_path):
    (tmp_path / "secret").write_bytes(b"secret")

    with pytest.raises(InvalidStorageKey):
        FileCache(tmp_path / "cache", max_bytes=BLOCK, open_storage=open_memory).read("key", "../secret")


def test_a_full_disk_is_named_and_leaves_nothing_half_written(storage, tmp_path):
    sha256, _ = _store(storage, 1)
    # The device answers every write as a full disk does; the cache counts its bytes in this file.
    (tmp_path / ".usage").symlink_to("/dev/full")
    cache = FileCache(tmp_path, max_bytes=BLOCK, open_storage=lambda: storage)

    with pytest.raises(DiskFull, match="DEFECTOSCOPE_TRAINER__CACHE_BYTES") as failure:
        _read(cache, sha256)

    assert failure.value.code == "disk_full"
    assert failure.value.details == {"directory": str(tmp_path)}
    assert _kept(tmp_path) == set()


def test_threads_that_want_the_same_and_different_objects_get_the_right_ones(storage, tmp_path):
    stored = [_store(storage, number, size=BLOCK * (1 + number % 2)) for number in range(20)]
    cache = FileCache(tmp_path, max_bytes=6 * BLOCK, open_storage=lambda: storage)

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda pair: _read(cache, pair[0]), stored * 10))

    assert found == [data for _, data in stored] * 10
    assert _disk_bytes(tmp_path) <= 6 * BLOCK


def test_a_cache_is_sent_to_another_process_without_its_connections(tmp_path):
    sha256, data = _store(open_local(tmp_path / "storage"), 1)
    cache = FileCache(tmp_path / "cache", max_bytes=BLOCK, open_storage=partial(open_local, tmp_path / "storage"))
    _read(cache, sha256)
    (tmp_path / "cache" / sha256).unlink()

    sent = pickle.loads(pickle.dumps(cache))  # noqa: S301 -- what DataLoader does; our own bytes

    assert _read(sent, sha256) == data


def test_processes_share_a_directory_within_the_bound(tmp_path):
    storage = open_local(tmp_path / "storage")
    stored = [_store(storage, number, size=BLOCK * (1 + number % 3))[0] for number in range(16)]
    cache = FileCache(tmp_path / "cache", max_bytes=8 * BLOCK, open_storage=partial(open_local, tmp_path / "storage"))
    context = multiprocessing.get_context("spawn")
    readers = [context.Process(target=read_over_and_over, args=(cache, stored, seed)) for seed in range(3)]

    for reader in readers:
        reader.start()
    used = []
    while any(reader.is_alive() for reader in readers):
        if (tmp_path / "cache").exists():
            used.append(_used_now(tmp_path / "cache"))
        readers[0].join(0.005)
    for reader in readers:
        reader.join()

    assert [reader.exitcode for reader in readers] == [0, 0, 0]
    assert max(used) <= 8 * BLOCK
    for name in _kept(tmp_path / "cache"):
        assert hashlib.sha256((tmp_path / "cache" / name).read_bytes()).hexdigest() == name


def _used_now(directory):
    """Count while others write: a file may be gone between the list and its size."""
    used_bytes = 0
    for entry in os.scandir(directory):
        try:
            used_bytes += -(-entry.stat().st_size // BLOCK) * BLOCK if entry.name != ".usage" else 0
        except FileNotFoundError:
            continue
    return used_bytes
