"""Uploads against a storage that fails. That good uploads arrive is shown against the real one."""

from __future__ import annotations

import hashlib

import pytest

from defectoscope.client import Client, Uploader, read_local_files
from defectoscope.errors.api import InvalidRequest
from defectoscope.errors.storage import StorageDenied, StorageFault, StorageUnavailable
from tests.unit.client.conftest import RESET, Answer


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"content of a")
    return path


@pytest.fixture
def upload(serve, file):
    """Upload the file to a storage with the given answers; return the storage and the addresses."""
    sha256 = hashlib.sha256(b"content of a").hexdigest()

    def run(*answers, read=None, **callbacks):
        storage = serve(*answers)
        target = {
            "url": f"{storage.url}/bucket/key?signed",
            "headers": {"If-None-Match": "*", "Content-Type": "image/png"},
        }
        api = serve(Answer(200, {"items": [{"sha256": sha256, "uri": "s3://bucket/key", "upload": target}]}))
        with Client(api.url) as client:
            local = read_local_files([file])
            if read is not None:
                read()
            return storage, Uploader(client, **callbacks).upload(local)

    return run


def test_a_file_arrives_with_exactly_the_headers_that_were_signed(upload):
    storage, uris = upload(Answer(200))

    [seen] = storage.seen
    assert list(uris.values()) == ["s3://bucket/key"]
    assert (seen.method, seen.path, seen.body) == ("PUT", "/bucket/key?signed", b"content of a")
    assert seen.headers["if-none-match"] == "*"
    assert seen.headers["content-type"] == "image/png"
    assert seen.headers["content-length"] == "12"
    assert "transfer-encoding" not in seen.headers


def test_content_that_somebody_else_stored_meanwhile_is_fine(upload):
    _, uris = upload(Answer(412))

    assert list(uris.values()) == ["s3://bucket/key"]


@pytest.mark.parametrize("failure", [pytest.param(RESET, id="reset"), pytest.param(Answer(503), id="503")])
def test_a_failure_that_passes_is_sent_again_and_counted_once(upload, failure):
    sent = []

    storage, _ = upload(failure, Answer(200), on_bytes=sent.append)

    assert len(storage.seen) == 2
    assert sum(sent) == len(b"content of a")


def test_a_storage_that_stays_away_is_named_with_the_file(upload, attempts):
    with pytest.raises(StorageUnavailable, match=r"did not take a\.png: it answered 503"):
        upload(Answer(503))


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        pytest.param(Answer(400, b"BadDigest"), InvalidRequest, id="digest"),
        pytest.param(Answer(403, b"SignatureDoesNotMatch"), StorageDenied, id="denied"),
        pytest.param(Answer(409, b"?"), StorageFault, id="strange"),
    ],
)
def test_a_refusal_is_not_repeated_for_long(upload, answer, kind):
    with pytest.raises(kind, match=r"a\.png"):
        upload(answer)


def test_an_address_that_has_expired_is_asked_for_again(upload):
    storage, uris = upload(Answer(403, b"expired"), Answer(200))

    assert len(storage.seen) == 2
    assert list(uris.values()) == ["s3://bucket/key"]


@pytest.mark.parametrize("change", [pytest.param(b"shorter", id="shorter"), pytest.param(b"longer" * 9, id="longer")])
def test_a_file_that_changes_while_it_is_sent_is_named(upload, file, change):
    with pytest.raises(InvalidRequest, match="changed while it was sent"):
        upload(Answer(200), read=lambda: file.write_bytes(change))


def test_a_file_that_vanishes_is_named(upload, file):
    with pytest.raises(InvalidRequest, match=r"a\.png cannot be read"):
        upload(Answer(200), read=file.unlink)


def test_what_is_stored_already_is_not_sent(serve, file):
    sha256 = hashlib.sha256(b"content of a").hexdigest()
    api = serve(Answer(200, {"items": [{"sha256": sha256, "uri": "s3://bucket/key", "upload": None}]}))
    stored = []

    with Client(api.url) as client:
        uris = Uploader(client, on_stored=lambda file, was_there: stored.append((file.path.name, was_there))).upload(
            read_local_files([file])
        )

    assert uris == {sha256: "s3://bucket/key"}
    assert stored == [("a.png", True)]


def test_equal_files_are_offered_once(serve, tmp_path):
    paths = [tmp_path / "a.png", tmp_path / "copy.png"]
    for path in paths:
        path.write_bytes(b"content of a")
    sha256 = hashlib.sha256(b"content of a").hexdigest()
    api = serve(Answer(200, {"items": [{"sha256": sha256, "uri": "s3://bucket/key", "upload": None}]}))

    with Client(api.url) as client:
        Uploader(client).upload(read_local_files(paths))

    assert api.seen[0].body.count(sha256.encode()) == 1


def test_a_file_is_described_by_its_content(file):
    [local] = read_local_files([file])

    assert local.sha256 == hashlib.sha256(b"content of a").hexdigest()
    assert (local.size_bytes, local.content_type) == (12, "image/png")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InvalidRequest, match=r"nowhere\.png cannot be read"):
        read_local_files([tmp_path / "nowhere.png"])
