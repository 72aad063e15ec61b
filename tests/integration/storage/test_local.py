"""What only a local directory has: links, files that are no objects, names that do not fit."""

from __future__ import annotations

import pytest

from defectoscope.errors.storage import InvalidStorageKey, ObjectNotFound, StorageDenied, StorageUnavailable
from defectoscope.storage.open import open_local

PNG = "image/png"


@pytest.fixture
def secret(tmp_path):
    """A file beside the storage."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    return outside / "secret"


@pytest.fixture
def storage(tmp_path, secret):
    """A storage in which someone put links that lead out."""
    opened = open_local(tmp_path / "storage")
    (tmp_path / "storage" / "file").symlink_to(secret)
    (tmp_path / "storage" / "folder").symlink_to(secret.parent)
    return opened


@pytest.mark.parametrize("key", ["file", "folder/secret"])
@pytest.mark.parametrize(
    "use",
    [
        pytest.param(lambda storage, key: storage.get(key), id="get"),
        pytest.param(lambda storage, key: storage.put(key, b"x", content_type=PNG), id="put"),
        pytest.param(lambda storage, key: storage.put_if_absent(key, b"x", content_type=PNG), id="put-if-absent"),
        pytest.param(lambda storage, key: storage.exists(key), id="exists"),
        pytest.param(lambda storage, key: storage.delete([key]), id="delete"),
    ],
)
def test_a_link_does_not_lead_out_of_the_directory(storage, secret, key, use):
    with pytest.raises(InvalidStorageKey):
        use(storage, key)

    assert secret.read_bytes() == b"secret"


def test_what_lies_behind_a_link_is_not_listed(storage):
    storage.put("own", b"x", content_type=PNG)

    assert [info.key for info in storage.list()] == ["own"]


def test_a_link_inside_the_directory_is_followed(storage, tmp_path):
    storage.put("own/1", b"x", content_type=PNG)
    (tmp_path / "storage" / "alias").symlink_to(tmp_path / "storage" / "own")

    assert storage.get("alias/1") == b"x"


@pytest.mark.parametrize(
    "key",
    [
        pytest.param("n" * 256, id="name-too-long"),
        pytest.param("taken/below", id="below-a-file"),
        pytest.param("holds", id="a-folder"),
        pytest.param("part#1", id="name-of-a-part"),
    ],
)
def test_a_key_the_file_system_cannot_hold_is_refused(tmp_path, key):
    storage = open_local(tmp_path / "storage")
    storage.put("taken", b"x", content_type=PNG)
    storage.put("holds/1", b"x", content_type=PNG)

    with pytest.raises(InvalidStorageKey):
        storage.put(key, b"x", content_type=PNG)

    assert sorted(info.key for info in storage.list()) == ["holds/1", "taken"]


def test_a_folder_is_no_object(tmp_path):
    storage = open_local(tmp_path / "storage")
    storage.put("folder/1", b"x", content_type=PNG)

    with pytest.raises(ObjectNotFound):
        storage.get("folder")


def test_a_directory_below_a_file_cannot_be_opened(tmp_path):
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises((StorageUnavailable, StorageDenied)):
        open_local(tmp_path / "file" / "storage")


def test_what_was_stored_is_there_after_opening_again(tmp_path):
    open_local(tmp_path / "storage").put("key", b"x", content_type=PNG)

    assert open_local(tmp_path / "storage").get("key") == b"x"
