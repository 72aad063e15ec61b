"""The three storages the contract is tested over, and servers that misbehave."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from defectoscope.storage.buckets import Buckets
from defectoscope.storage.contract import Storage
from defectoscope.storage.open import S3Config, open_local, open_memory, open_s3


@pytest.fixture
def s3_config(connections) -> S3Config:
    """A bucket of our own on the real server, empty at the start of each test."""
    config = S3Config(
        endpoint_url=connections.s3_endpoint_url,
        region=connections.s3_region,
        access_key=connections.s3_access_key,
        secret_key=connections.s3_secret_key,
        bucket="storage-contract",
    )
    Buckets(config).ensure(config.bucket)
    leftovers = open_s3(config)
    leftovers.delete([info.key for info in leftovers.list()])
    return config


@pytest.fixture(params=["memory", "local", "s3"])
def storage(request, tmp_path) -> Storage:
    """Every storage the product knows."""
    if request.param == "memory":
        return open_memory()
    if request.param == "local":
        return open_local(tmp_path / "storage")
    return open_s3(request.getfixturevalue("s3_config"))


@pytest.fixture
def silent_endpoint() -> Iterator[str]:
    """A server that accepts connections and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def closed_endpoint() -> str:
    """An address where nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


@pytest.fixture
def endpoint_answering() -> Callable[..., object]:
    """Start a server that gives one fixed answer to everything; a context manager giving its address."""

    @contextmanager
    def serve(status: int, body: bytes, *, stated_length: int | None = None) -> Iterator[str]:
        class OneAnswer(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self.send_response(status)
                self.send_header("Content-Length", str(len(body) if stated_length is None else stated_length))
                self.send_header("ETag", '"fixed"')
                self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
                self.send_header("Connection", "close")
                self.end_headers()
                self.wfile.write(body)

            do_PUT = do_GET  # noqa: N815 -- the names the server asks for
            do_POST = do_GET  # noqa: N815

            def log_message(self, *args: object) -> None:
                """Say nothing."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), OneAnswer)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
            server.server_close()

    return serve


@pytest.fixture
def random_file(tmp_path) -> Callable[[int], Path]:
    """Write a file of a given size whose content does not repeat."""

    def write(size_bytes: int) -> Path:
        path = tmp_path / "source.bin"
        with Path("/dev/urandom").open("rb") as source, path.open("wb") as target:
            for start in range(0, size_bytes, 1 << 20):
                target.write(source.read(min(1 << 20, size_bytes - start)))
        return path

    return write
