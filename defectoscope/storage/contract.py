"""What every object storage offers to the rest of the product, whether S3, a local directory or memory is behind it.

Keys are `/`-separated text without empty, `.` or `..` segments, without backslashes and control characters, of at most
1024 bytes in UTF-8 (`keys.py` refuses the others). This file refuses to know any vendor.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectInfo:
    """What the storage knows about one object without reading it.

    Attributes:
        key: The full key.
        size_bytes: Length of the object in bytes.
        etag: Opaque text that changes with the content, quotes included; pass it back as `if_match`.
        modified_at: Time of the last write, UTC.
    """

    key: str
    size_bytes: int
    etag: str | None
    modified_at: datetime


class Storage(Protocol):
    """One bucket, one directory or one memory.

    An instance is safe to share between threads, and meant to be: it holds the pool of connections. It must not cross
    a fork. Every method raises `StorageUnavailable` when the storage does not answer, `StorageDenied` when it refuses
    the credentials, `BucketNotFound` when the bucket is missing and `InvalidStorageKey` for a key outside the rules.
    """

    def get(self, key: str, *, if_match: str | None = None, max_bytes: int | None = None) -> bytes:
        """Read a whole object.

        Args:
            key: The object.
            if_match: The etag the object must still have.
            max_bytes: The most bytes to read; a larger object is refused before its content is fetched.

        Returns:
            Its bytes.

        Raises:
            ObjectNotFound: There is no such object.
            SourceChanged: Its etag is not `if_match`.
            ObjectTooLarge: It has more than `max_bytes` bytes.
        """
        ...

    def get_to_file(self, key: str, path: Path, *, max_bytes: int | None = None) -> int:
        """Stream an object into a file in flat memory; the file appears complete or not at all.

        Args:
            key: The object.
            path: The file to write; an existing one is replaced. Its directory must exist.
            max_bytes: The most bytes to accept.

        Returns:
            The number of bytes written.

        Raises:
            ObjectNotFound: There is no such object.
            ObjectTooLarge: It has more than `max_bytes` bytes.
            DiskFull: There is no room for it.
        """
        ...

    def put(self, key: str, data: bytes, *, content_type: str) -> None:
        """Write an object in one atomic step, over an existing one too.

        Args:
            key: The object.
            data: Its new content.
            content_type: Media type to store with it; a local directory keeps none.
        """
        ...

    def put_file(self, key: str, path: Path, *, content_type: str) -> None:
        """Write an object from a file, in flat memory and in parts when it is large; readers see all of it or nothing.

        Args:
            key: The object.
            path: The file to read.
            content_type: Media type to store with it; a local directory keeps none.

        Raises:
            FileNotFoundError: There is no file at `path`.
        """
        ...

    def put_if_absent(self, key: str, data: bytes, *, content_type: str) -> bool:
        """Write an object unless one with this key exists; of several racing writers exactly one wins.

        A write whose answer was lost on the network may be reported as False although its bytes are the stored ones.

        Args:
            key: The object.
            data: Its content.
            content_type: Media type to store with it; a local directory keeps none.

        Returns:
            True when this call wrote the object, False when it existed.
        """
        ...

    def head(self, key: str) -> ObjectInfo:
        """Look at an object without reading it.

        Raises:
            ObjectNotFound: There is no such object.
        """
        ...

    def exists(self, key: str) -> bool:
        """Say whether there is an object with this key."""
        ...

    def list(self, prefix: str = "", *, start_after: str | None = None) -> Iterator[ObjectInfo]:
        """Walk over the objects whose keys begin with `prefix`, in ascending order of code points of the key.

        The order is the same on every backend, so the last key seen is all that is needed to go on later. S3 is read
        page by page in flat memory; a local directory and memory are sorted first, so they hold all their
        `ObjectInfo` at once. Objects written or deleted meanwhile may or may not appear. Folder markers, empty
        objects whose key ends with `/`, are left out.

        Args:
            prefix: Plain text, not a folder: `lot-1` matches `lot-1/a.png` and `lot-10/a.png`; write `lot-1/` for one
                folder.
            start_after: Only keys greater than this key or prefix are given; it need not exist.

        Returns:
            An iterator; errors appear while it is consumed.
        """
        ...

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects; a key without an object is no error.

        Args:
            keys: Any number of keys, consumed in batches.
        """
        ...
