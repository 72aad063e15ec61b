"""What only S3 has: buckets, credentials, folder markers, and a network that fails."""

from __future__ import annotations

import dataclasses
import socket
import threading
import time

import httpx
import pytest

from defectoscope.errors.images import SourceChanged
from defectoscope.errors.storage import (
    BucketNotFound,
    InvalidStorageUri,
    ObjectNotFound,
    StorageDenied,
    StorageFault,
    StorageUnavailable,
)
from defectoscope.storage.buckets import Buckets
from defectoscope.storage.open import Patience, open_s3

PNG = "image/png"
IMPATIENT = Patience(connect_s=0.5, stall_s=0.5, retry_s=0.5)

EVERY_CALL = [
    pytest.param(lambda storage, _: storage.get("key"), id="get"),
    pytest.param(lambda storage, path: storage.get_to_file("key", path), id="get-to-file"),
    pytest.param(lambda storage, _: storage.head("key"), id="head"),
    pytest.param(lambda storage, _: storage.exists("key"), id="exists"),
    pytest.param(lambda storage, _: list(storage.list()), id="list"),
    pytest.param(lambda storage, _: storage.delete(["key"]), id="delete"),
    pytest.param(lambda storage, _: storage.put("key", b"x", content_type=PNG), id="put"),
    pytest.param(lambda storage, _: storage.put_if_absent("key", b"x", content_type=PNG), id="put-if-absent"),
]


def test_a_bucket_is_made_once(s3_config):
    buckets = Buckets(s3_config)

    buckets.ensure(s3_config.bucket)
    buckets.ensure(s3_config.bucket)

    assert buckets.exists(s3_config.bucket)
    assert not buckets.exists("a-bucket-never-made")


@pytest.mark.parametrize("name", ["", "a b", "UPPER/case"])
def test_a_name_that_no_bucket_can_have_is_refused(s3_config, name):
    with pytest.raises(InvalidStorageUri):
        Buckets(s3_config).ensure(name)


def test_another_bucket_is_another_storage(s3_config):
    Buckets(s3_config).ensure("storage-contract-other")
    own, other = open_s3(s3_config), open_s3(s3_config, bucket="storage-contract-other")
    other.put("only-there", b"x", content_type=PNG)

    seen_by_own = own.exists("only-there")
    other.delete(["only-there"])

    assert not seen_by_own


@pytest.mark.parametrize("call", EVERY_CALL)
def test_a_missing_bucket_is_named(s3_config, tmp_path, call):
    storage = open_s3(s3_config, bucket="a-bucket-never-made")

    with pytest.raises(BucketNotFound) as caught:
        call(storage, tmp_path / "out")

    assert caught.value.details["bucket"] == "a-bucket-never-made"


@pytest.mark.parametrize("call", EVERY_CALL)
def test_a_wrong_secret_is_denied(s3_config, tmp_path, call):
    storage = open_s3(dataclasses.replace(s3_config, secret_key="wrong"))

    with pytest.raises(StorageDenied) as caught:
        call(storage, tmp_path / "out")

    assert "wrong" not in str(caught.value.details)


def test_a_wrong_secret_cannot_ask_for_buckets(s3_config):
    with pytest.raises(StorageDenied):
        Buckets(dataclasses.replace(s3_config, secret_key="wrong")).ensure("any-bucket")


def test_credentials_left_in_the_environment_are_not_used(s3_config, monkeypatch):
    for name in ("AWS_SESSION_TOKEN", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "someone-elses")
    monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
    monkeypatch.setenv("AWS_BUCKET", "someone-elses")

    open_s3(s3_config).put("key", b"x", content_type=PNG)

    assert open_s3(s3_config).get("key") == b"x"
    assert Buckets(s3_config).exists(s3_config.bucket)


@pytest.mark.parametrize("call", EVERY_CALL)
@pytest.mark.parametrize("endpoint", ["closed_endpoint", "silent_endpoint"])
def test_a_server_that_does_not_answer_is_unavailable_in_time(s3_config, tmp_path, request, endpoint, call):
    config = dataclasses.replace(s3_config, endpoint_url=request.getfixturevalue(endpoint))
    storage = open_s3(config, patience=IMPATIENT)
    started_s = time.monotonic()

    with pytest.raises(StorageUnavailable):
        call(storage, tmp_path / "out")

    assert time.monotonic() - started_s < 5
    assert list(tmp_path.iterdir()) == []


def test_a_silent_server_is_unavailable_within_20_seconds_by_default(s3_config, silent_endpoint):
    started_s = time.monotonic()

    with pytest.raises(StorageUnavailable):
        open_s3(dataclasses.replace(s3_config, endpoint_url=silent_endpoint)).get("key")

    assert time.monotonic() - started_s < 20


def test_buckets_of_a_dead_server_are_unavailable(s3_config, closed_endpoint):
    with pytest.raises(StorageUnavailable):
        Buckets(dataclasses.replace(s3_config, endpoint_url=closed_endpoint)).exists("any-bucket")


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        pytest.param(400, "InvalidRequest", StorageFault, id="400"),
        pytest.param(401, "Unauthorized", StorageDenied, id="401"),
        pytest.param(403, "RequestTimeTooSkewed", StorageDenied, id="403"),
        pytest.param(404, "NoSuchKey", ObjectNotFound, id="404-key"),
        pytest.param(404, "NoSuchBucket", BucketNotFound, id="404-bucket"),
        pytest.param(412, "PreconditionFailed", SourceChanged, id="412"),
        pytest.param(429, "SlowDown", StorageUnavailable, id="429"),
        pytest.param(500, "InternalError", StorageUnavailable, id="500"),
        pytest.param(503, "SlowDown", StorageUnavailable, id="503"),
        pytest.param(301, "PermanentRedirect", StorageFault, id="301-region"),
    ],
)
def test_each_answer_of_a_server_has_its_error(s3_config, endpoint_answering, status, code, error):
    with endpoint_answering(status, f"<Error><Code>{code}</Code></Error>".encode()) as url:
        storage = open_s3(dataclasses.replace(s3_config, endpoint_url=url), patience=IMPATIENT)

        with pytest.raises(error) as caught:
            storage.get("key")

    assert type(caught.value) is error


def test_a_download_that_breaks_off_leaves_no_file(s3_config, endpoint_answering, tmp_path):
    target = tmp_path / "model.onnx"
    target.write_bytes(b"the former model")

    with endpoint_answering(200, b"x" * 1000, stated_length=100_000) as url:
        storage = open_s3(dataclasses.replace(s3_config, endpoint_url=url), patience=IMPATIENT)

        with pytest.raises(StorageUnavailable):
            storage.get_to_file("key", target)

    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    assert target.read_bytes() == b"the former model"


@pytest.mark.parametrize(
    "changed",
    [
        *[
            pytest.param({"endpoint_url": url}, id=url)
            for url in ("no address", "ftp://host", "http://", "http://ho st", "http://[::1", "http://h:99999", "h:80")
        ],
        pytest.param({"access_key": "key\n"}, id="access-key-with-line-break"),
        pytest.param({"secret_key": "secret\n"}, id="secret-key-with-line-break"),
        pytest.param({"region": ""}, id="no-region"),
    ],
)
def test_a_configuration_that_cannot_be_sent_is_refused_at_once(s3_config, changed):
    with pytest.raises(StorageFault) as caught:
        dataclasses.replace(s3_config, **changed)

    assert "secret\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["ab", "a b", "UPPER", "a/b", "a\nb"])
def test_a_bucket_with_an_impossible_name_is_not_opened(s3_config, name):
    with pytest.raises(InvalidStorageUri):
        open_s3(s3_config, bucket=name)


def test_a_waiting_call_lets_other_threads_run(s3_config, silent_endpoint):
    config = dataclasses.replace(s3_config, endpoint_url=silent_endpoint)
    storage = open_s3(config, patience=IMPATIENT)
    outcomes = []

    def read():
        try:
            storage.get("key")
        except StorageUnavailable as exc:
            outcomes.append(exc)

    waiting = threading.Thread(target=read)
    waiting.start()
    turns = 0
    while waiting.is_alive():
        turns += 1
        time.sleep(0.01)

    assert len(outcomes) == 1
    assert turns > 20


def test_calls_reuse_connections(s3_config, connections):
    host, port = connections.s3_endpoint_url.removeprefix("http://").split(":")
    with CountingProxy(host, int(port)) as proxy:
        storage = open_s3(s3_config_through(proxy, s3_config))

        for _ in range(20):
            storage.exists("absent")

    # Twenty calls of one request or two; the pool may open a few before the first is free again.
    assert proxy.connections <= 5


def s3_config_through(proxy, config):
    return dataclasses.replace(config, endpoint_url=f"http://127.0.0.1:{proxy.port}")


class CountingProxy:
    """Passes bytes to a server and counts the connections made."""

    def __init__(self, host, port):
        self.connections = 0
        self._target = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._sockets = []
        self._threads = [threading.Thread(target=self._accept)]

    def __enter__(self):
        self._threads[0].start()
        return self

    def __exit__(self, *exc_info):
        self._listener.shutdown(socket.SHUT_RDWR)
        for end in self._sockets:
            end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for end in [self._listener, *self._sockets]:
            end.close()

    def _accept(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            server = socket.create_connection(self._target)
            self._sockets += [client, server]
            for source, target in ((client, server), (server, client)):
                thread = threading.Thread(target=self._pass_on, args=(source, target))
                self._threads.append(thread)
                thread.start()

    def _pass_on(self, source, target):
        while data := source.recv(65536):
            target.sendall(data)


def test_folder_markers_are_not_listed_and_empty_objects_are(s3_config):
    storage = open_s3(s3_config)
    storage.put("folder/empty", b"", content_type=PNG)
    # Consoles of S3 make such markers; our own keys may not end with a slash.
    marker_url = Buckets(s3_config)._client.generate_presigned_url(
        "put_object", Params={"Bucket": s3_config.bucket, "Key": "marker/"}
    )
    marker_status = httpx.put(marker_url).status_code

    listed = [info.key for info in storage.list()]

    assert marker_status == 200
    assert listed == ["folder/empty"]
