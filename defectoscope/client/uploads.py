"""Brings local files into object storage: hashed, offered to the API, and only what is missing is sent, in threads.

Content addressing makes all of it repeatable: an upload that broke off is taken up by running it again, and files that
are there already cost one line in a request.
"""

from __future__ import annotations

import hashlib
import mimetypes
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from time import sleep
from typing import TypeVar

import httpx

from defectoscope.client.client import Client
from defectoscope.client.transport import RETRY_PAUSES_S, is_loopback
from defectoscope.client.wire import Upload, UploadTarget
from defectoscope.errors.api import InvalidRequest
from defectoscope.errors.storage import ObjectTooLarge, StorageDenied, StorageFault, StorageUnavailable

T = TypeVar("T")

#: What S3 takes in one PUT.
MAX_OBJECT_BYTES = 5 * 10**9
THREADS = 8
#: Addresses expire, so they are asked for in batches that are sent within minutes.
_BATCH = 200
_PIECE_BYTES = 1 << 20
_EMPTY_TYPE = "application/octet-stream"


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalFile:
    """A file with its content hash."""

    path: Path
    sha256: str
    size_bytes: int
    content_type: str


def read_local_files(paths: Sequence[Path], *, on_read: Callable[[Path], None] | None = None) -> list[LocalFile]:
    """Hash files, in threads.

    Args:
        paths: the files.
        on_read: called after each, from any thread.

    Raises:
        InvalidRequest: a file cannot be read.
        ObjectTooLarge: a file is larger than one upload may be.
    """

    def read(path: Path) -> LocalFile:
        try:
            size_bytes = path.stat().st_size
            if size_bytes > MAX_OBJECT_BYTES:
                raise ObjectTooLarge(f"{path} has {size_bytes} bytes; one upload may have {MAX_OBJECT_BYTES}.")
            with path.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as exc:
            raise InvalidRequest(f"{path} cannot be read: {exc.strerror}.") from exc
        if on_read is not None:
            on_read(path)
        content_type = mimetypes.guess_type(path.name)[0] or _EMPTY_TYPE
        return LocalFile(path=path, sha256=sha256, size_bytes=size_bytes, content_type=content_type)

    with ThreadPoolExecutor(THREADS, thread_name_prefix="hash") as pool:
        return _all_or_first_error(pool, [pool.submit(read, path) for path in paths])


class Uploader:
    """Sends files to object storage through addresses that the API signs.

    Args:
        client: asked for the addresses.
        on_bytes: called with how many more bytes have left, from any thread; a negative number takes back what a
            repetition sends again.
        on_stored: called with each file once it is stored, and whether it was before; from any thread.
    """

    def __init__(
        self,
        client: Client,
        *,
        on_bytes: Callable[[int], None] | None = None,
        on_stored: Callable[[LocalFile, bool], None] | None = None,
    ) -> None:
        self._client = client
        self._on_bytes = on_bytes or (lambda _count: None)
        self._on_stored = on_stored or (lambda _file, _was_there: None)
        self._stop = threading.Event()

    def upload(self, files: Iterable[LocalFile]) -> dict[str, str]:
        """Store files; equal content once.

        Returns:
            The ``s3://`` address of each content hash.

        Raises:
            InvalidRequest: a file changed while it was sent.
            StorageUnavailable: the object storage does not answer.
            StorageDenied, StorageFault: it refuses.
            ApiUnavailable: the API does not answer.
        """
        wanted = list({file.sha256: file for file in files}.values())
        uris: dict[str, str] = {}
        with (
            httpx.Client(timeout=60.0, limits=httpx.Limits(max_connections=THREADS)) as proxied,
            httpx.Client(timeout=60.0, limits=httpx.Limits(max_connections=THREADS), trust_env=False) as direct,
            ThreadPoolExecutor(THREADS, thread_name_prefix="upload") as pool,
            ExitStack() as on_error,
        ):
            # Also for Ctrl-C: the threads in the middle of a file end at its next piece.
            on_error.callback(self._stop.set)
            for start in range(0, len(wanted), _BATCH):
                batch = wanted[start : start + _BATCH]
                uploads = self._ask(batch)
                uris.update({sha256: upload["uri"] for sha256, upload in uploads.items()})
                futures = [pool.submit(self._store, file, uploads[file.sha256], proxied, direct) for file in batch]
                _all_or_first_error(pool, futures)
            on_error.pop_all()
        return uris

    def _ask(self, files: Sequence[LocalFile]) -> dict[str, Upload]:
        uploads = self._client.request_uploads(
            [
                {"sha256": file.sha256, "size_bytes": file.size_bytes, "content_type": file.content_type}
                for file in files
            ]
        )
        return {upload["sha256"]: upload for upload in uploads}

    def _store(self, file: LocalFile, upload: Upload, proxied: httpx.Client, direct: httpx.Client) -> None:
        target = upload["upload"]
        if target is not None:
            http = direct if is_loopback(httpx.URL(target["url"]).host) else proxied
            try:
                self._put(file, target, http)
            except StorageDenied:
                # Large files before this one may have taken longer than the address was valid.
                again = self._ask([file])[file.sha256]["upload"]
                if again is not None:
                    self._put(file, again, http)
        self._on_stored(file, target is None)

    def _put(self, file: LocalFile, target: UploadTarget, http: httpx.Client) -> None:
        pauses = iter(RETRY_PAUSES_S)
        while True:
            pieces = _Pieces(file, on_bytes=self._on_bytes, stop=self._stop)
            try:
                response = http.put(
                    target["url"],
                    content=iter(pieces),
                    headers={"Content-Length": str(file.size_bytes), **target["headers"]},
                )
            except httpx.TransportError as exc:
                problem = f"the connection failed ({exc})" if str(exc) else "the connection failed"
            except OSError as exc:
                raise InvalidRequest(f"{file.path} cannot be read: {exc.strerror}.") from exc
            else:
                # 412: somebody else stored the same content in the meantime.
                if response.is_success or response.status_code == HTTPStatus.PRECONDITION_FAILED:
                    return
                if response.status_code < HTTPStatus.INTERNAL_SERVER_ERROR:
                    raise _refusal(file, response)
                problem = f"it answered {response.status_code}"
            self._on_bytes(-pieces.sent_bytes)
            pause_s = next(pauses, None)
            if pause_s is None:
                raise StorageUnavailable(f"The object storage did not take {file.path.name}: {problem}.")
            sleep(pause_s)


class _Pieces:
    """Reads a file piece by piece, counts what was handed out, and notices when it is not as long as it was."""

    def __init__(self, file: LocalFile, *, on_bytes: Callable[[int], None], stop: threading.Event) -> None:
        self._file = file
        self._on_bytes = on_bytes
        self._stop = stop
        self.sent_bytes = 0

    def __iter__(self) -> Iterator[bytes]:
        with self._file.path.open("rb") as stream:
            while self.sent_bytes < self._file.size_bytes:
                piece = stream.read(min(_PIECE_BYTES, self._file.size_bytes - self.sent_bytes))
                if self._stop.is_set():
                    raise StorageUnavailable(f"The upload of {self._file.path} was broken off.")
                if not piece:
                    raise _changed(self._file)
                yield piece
                self.sent_bytes += len(piece)
                self._on_bytes(len(piece))
            if stream.read(1):
                raise _changed(self._file)


def _changed(file: LocalFile) -> InvalidRequest:
    return InvalidRequest(f"{file.path} changed while it was sent; run the command again.")


def _refusal(file: LocalFile, response: httpx.Response) -> InvalidRequest | StorageDenied | StorageFault:
    name = file.path.name
    if response.status_code == HTTPStatus.BAD_REQUEST:
        return InvalidRequest(f"{name} changed while it was sent, or was damaged on the way; run the command again.")
    if response.status_code in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        return StorageDenied(f"The object storage refuses {name} (status {response.status_code}).")
    return StorageFault(f"The object storage answered {response.status_code} to {name}.", body=response.text[:200])


def _all_or_first_error(pool: ThreadPoolExecutor, futures: list[Future[T]]) -> list[T]:
    """Return all results in order; at the first error give the rest up and raise it."""
    with ExitStack() as on_error:
        # Also for Ctrl-C: what has not begun is not begun any more.
        on_error.callback(pool.shutdown, wait=False, cancel_futures=True)
        wait(futures, return_when=FIRST_EXCEPTION)
        for future in futures:
            if future.done():
                future.result()
        on_error.pop_all()
    return [future.result() for future in futures]
