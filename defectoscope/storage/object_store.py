"""The one implementation of `Storage`, over an obstore store: S3, a local directory or memory.

There is one path for reading, writing and errors; the few places where the three differ say so. obstore releases the
interpreter lock while it waits, so threads share one instance and its connections. It refuses to buffer files: they go
through memory in parts of a few MiB.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import obstore
from obstore.store import ObjectStore

from defectoscope.errors.storage import InvalidStorageKey, ObjectExists, ObjectNotFound, ObjectTooLarge
from defectoscope.storage.contract import ObjectInfo
from defectoscope.storage.failures import translated
from defectoscope.storage.keys import check_content_type, check_etag, check_key, check_prefix
from defectoscope.storage.local_disk import naming_a_full_disk
from defectoscope.storage.ordering import LAST_NAME, KeyOrder

if TYPE_CHECKING:
    from obstore import GetOptions

_MIB = 1024 * 1024
# 5 MiB is the smallest part S3 accepts; four parts in flight bound the memory of an upload to 20 MiB.
_PART_BYTES = 5 * _MIB
_PARTS_IN_FLIGHT = 4
_READ_BYTES = 4 * _MIB
# The most S3 gives on one page and deletes with one request.
_PAGE_OBJECTS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class ObstoreStorage:
    """A `Storage` over one obstore store.

    Args:
        store: The obstore store.
        bucket: Its bucket when it is S3.
        directory: Its directory, resolved, when it is local; neither when it is memory.
    """

    store: ObjectStore
    bucket: str | None = None
    directory: Path | None = None

    def get(self, key: str, *, if_match: str | None = None, max_bytes: int | None = None) -> bytes:
        """Read a whole object; see `Storage.get`."""
        self._check(key)
        options: GetOptions = {} if if_match is None else {"if_match": check_etag(if_match)}
        with translated(**self._facts(key)):
            result = obstore.get(self.store, key, options=options)
        self._check_size(result, key, max_bytes=max_bytes)
        with translated(**self._facts(key)):
            return bytes(result.bytes())

    def get_to_file(self, key: str, path: Path, *, max_bytes: int | None = None) -> int:
        """Stream an object into a file; see `Storage.get_to_file`."""
        self._check(key)
        with translated(**self._facts(key)):
            result = obstore.get(self.store, key)
        self._check_size(result, key, max_bytes=max_bytes)
        with (
            naming_a_full_disk(path.parent),
            tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as part,
        ):
            part_path = Path(part.name)
            try:
                for chunk in self._chunks(result, key):
                    part.write(chunk)
                written_bytes = part.tell()
                part.close()
                part_path.replace(path)
            finally:
                # Gone already when all went well.
                part_path.unlink(missing_ok=True)
        return written_bytes

    def put(self, key: str, data: bytes, *, content_type: str) -> None:
        """Write an object over whatever was there; see `Storage.put`."""
        self._put(key, data, content_type=content_type)

    def put_file(self, key: str, path: Path, *, content_type: str) -> None:
        """Write an object from a file in parts; see `Storage.put_file`."""
        # A missing source is asked for first: below, a missing file would read as a missing object.
        path.stat()
        self._put(key, path, content_type=content_type)

    def put_if_absent(self, key: str, data: bytes, *, content_type: str) -> bool:
        """Write an object unless one is there; see `Storage.put_if_absent`."""
        self._check(key)
        attributes = self._attributes(content_type)
        try:
            with translated(**self._facts(key)):
                obstore.put(self.store, key, data, mode="create", attributes=attributes)
        except ObjectExists:
            return False
        return True

    def head(self, key: str) -> ObjectInfo:
        """Look at an object; see `Storage.head`."""
        self._check(key)
        try:
            with translated(**self._facts(key)):
                return _info(obstore.head(self.store, key))
        except ObjectNotFound:
            self._fail_without_bucket(key)
            raise

    def exists(self, key: str) -> bool:
        """Say whether an object is there; see `Storage.exists`."""
        try:
            self.head(key)
        except ObjectNotFound:
            return False
        return True

    def list(self, prefix: str = "", *, start_after: str | None = None) -> Iterator[ObjectInfo]:
        """Walk over the objects in key order; see `Storage.list`."""
        check_prefix(prefix)
        check_prefix(start_after or "")
        folder = prefix[: prefix.rfind("/") + 1]
        after = max(filter(None, (start_after, _just_before(prefix, folder))), default=None)
        for info in self._in_key_order(folder, after):
            if info.key.startswith(prefix):
                if start_after is None or info.key > start_after:
                    yield info
            elif info.key > prefix:
                return

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects in batches; see `Storage.delete`."""
        remaining = iter(keys)
        while batch := list(islice(remaining, _PAGE_OBJECTS)):
            for key in batch:
                self._check(key)
            if self.directory is None:
                with translated(**self._facts()):
                    obstore.delete(self.store, batch)
            else:
                self._delete_files(batch)

    def _put(self, key: str, source: bytes | Path, *, content_type: str) -> None:
        """Write bytes or a file; obstore turns what is larger than one part into a multipart upload."""
        self._check(key)
        attributes = self._attributes(content_type)
        with translated(**self._facts(key)):
            obstore.put(
                self.store,
                key,
                source,
                attributes=attributes,
                chunk_size=_PART_BYTES,
                max_concurrency=_PARTS_IN_FLIGHT,
            )

    def _delete_files(self, keys: Sequence[str]) -> None:
        """Delete files one by one: a missing one ends a batch of a local directory, and would spare the others."""
        for key in keys:
            try:
                with translated(**self._facts(key)):
                    obstore.delete(self.store, key)
            except ObjectNotFound:
                continue

    def _in_key_order(self, folder: str, after: str | None) -> Iterator[ObjectInfo]:
        """List a folder in key order: S3 by pages, a directory or memory sorted as a whole."""
        if self.bucket is not None:
            return KeyOrder(self._read_folder).walk(folder, after=after)
        infos = (info for info in self._read_folder(folder, offset=None) if after is None or info.key > after)
        return iter(sorted(infos, key=lambda info: info.key))

    def _read_folder(self, folder: str, *, offset: str | None) -> Iterator[ObjectInfo]:
        """List everything below a folder in the order of the store, page by page."""
        pages = iter(obstore.list(self.store, folder or None, offset=offset, chunk_size=_PAGE_OBJECTS))
        while True:
            with translated(**self._facts(folder)):
                page = next(pages, None)
            if page is None:
                return
            for meta in page:
                info = _info(meta)
                if not self._is_hidden(info):
                    yield info

    def _is_hidden(self, info: ObjectInfo) -> bool:
        """Say whether a listed entry is no object: a folder marker on S3, a link out of a local directory.

        obstore drops the final `/` of a folder marker, so only asking for the object tells it from an empty one.
        """
        if self.directory is not None:
            return not (self.directory / info.key).resolve().is_relative_to(self.directory)
        if self.bucket is not None and info.size_bytes == 0:
            try:
                with translated(**self._facts(info.key)):
                    obstore.head(self.store, info.key)
            except ObjectNotFound:
                return True
        return False

    def _chunks(self, result: obstore.GetResult, key: str) -> Iterator[bytes]:
        """Give the parts of an object; an error of the caller's own file must not be taken for one of the storage."""
        with translated(**self._facts(key)):
            stream = iter(result.stream(min_chunk_size=_READ_BYTES))
        while True:
            with translated(**self._facts(key)):
                chunk = next(stream, None)
            if chunk is None:
                return
            yield chunk

    def _check(self, key: str) -> None:
        """Refuse a key outside the rules, and one that a link would lead out of the local directory."""
        check_key(key)
        if self.directory is not None and not (self.directory / key).resolve().is_relative_to(self.directory):
            raise InvalidStorageKey("The key leads out of the storage directory.", key=key)

    def _check_size(self, result: obstore.GetResult, key: str, *, max_bytes: int | None) -> None:
        """Refuse an object by the size its answer declares, before its content is read."""
        size_bytes = int(result.meta["size"])
        if max_bytes is not None and size_bytes > max_bytes:
            raise ObjectTooLarge(
                f"The object has {size_bytes} bytes; {max_bytes} are allowed.",
                **self._facts(key),
                size_bytes=size_bytes,
            )

    def _fail_without_bucket(self, key: str) -> None:
        """Raise `BucketNotFound` when that is why an object is missing; the answer to a HEAD cannot say it."""
        if self.bucket is not None:
            try:
                with translated(**self._facts(key)):
                    obstore.get(self.store, key, options={"range": (0, 1)})
            except ObjectNotFound:
                return

    def _attributes(self, content_type: str) -> dict[str, str] | None:
        """Return what to store with an object; the file system has no place for it and obstore refuses to drop it."""
        attributes = {"Content-Type": check_content_type(content_type)}
        return attributes if self.directory is None else None

    def _facts(self, key: str | None = None) -> dict[str, Any]:
        """Return what an error should tell: the bucket, if any, and the key, if one is meant."""
        return {name: value for name, value in (("bucket", self.bucket), ("key", key)) if value is not None}


def _info(meta: obstore.ObjectMeta) -> ObjectInfo:
    """Make our record from obstore's."""
    return ObjectInfo(
        key=meta["path"],
        size_bytes=int(meta["size"]),
        etag=meta["e_tag"],
        modified_at=meta["last_modified"].astimezone(UTC),
    )


def _just_before(prefix: str, folder: str) -> str | None:
    """Return a text before every key that begins with the prefix, to begin reading near it; None when in doubt.

    Only printable ASCII is stepped back by one; other characters are rare at the end of a prefix, and without this
    bound the listing merely reads more.
    """
    if prefix == folder:
        return None
    predecessor = chr(ord(prefix[-1]) - 1)
    return f"{prefix[:-1]}{predecessor}{LAST_NAME}" if "!" <= predecessor < "~" and predecessor != "\\" else None
