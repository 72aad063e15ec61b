"""Where the images of a job come from: addresses, the buckets that may be read, and what one listing entry says."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from threading import Lock

from defectoscope.errors import DefectoscopeError
from defectoscope.errors.storage import BucketNotAllowed
from defectoscope.storage import S3Uri, Storage

#: As long as an object key can be. The names of a job are indexed, and an index entry has its limits.
MAX_NAME_BYTES = 1024


def is_item_name(name: str) -> bool:
    """Return whether an image of a job may have this name."""
    return bool(name) and "\0" not in name and len(name.encode(errors="replace")) <= MAX_NAME_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceImage:
    """One image as submitted: a name unique in its job, the address of its bytes and of its label's bytes."""

    name: str
    uri: str
    etag: str | None = None
    label_uri: str | None = None
    #: Set when it is known already that this image cannot be used.
    error: DefectoscopeError | None = None
    #: Set when it is known already that its label cannot be used; the image is inspected all the same.
    label_error: DefectoscopeError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplicitImages:
    """A list of images."""

    images: tuple[SourceImage, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prefix:
    """Every image below ``s3://bucket/prefix``, labels beside them or below ``labels_uri``."""

    uri: str
    labels_uri: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """Every image in a zip archive in storage."""

    uri: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Every image that a CSV file in storage names."""

    uri: str


Source = ExplicitImages | Prefix | Archive | Manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Some images of a source, and the cursor after them; None when these were the last.

    ``lines`` are their line numbers where the source is a manifest.
    """

    images: list[SourceImage]
    cursor: str | None
    lines: tuple[int, ...] = ()


#: Closed by whoever reads them: files may be open meanwhile.
Pages = Generator[Page, None, None]


@dataclass(slots=True)
class InputBuckets:
    """Opens the buckets that images may be read from: our own, and those the settings allow."""

    own_name: str
    own: Storage
    open_bucket: Callable[[str], Storage]
    allowed: tuple[str, ...] = ()
    _opened: dict[str, Storage] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def open(self, bucket: str) -> Storage:
        """Return the storage of a bucket; one client a bucket, shared by threads.

        Raises:
            BucketNotAllowed: the settings do not allow reading from it.
        """
        if bucket == self.own_name:
            return self.own
        if bucket not in self.allowed and "*" not in self.allowed:
            raise BucketNotAllowed(
                f"Images may not be read from the bucket {bucket}; add it to DEFECTOSCOPE_STORAGE__INPUT_BUCKETS.",
                bucket=bucket,
            )
        with self._lock:
            if bucket not in self._opened:
                self._opened[bucket] = self.open_bucket(bucket)
            return self._opened[bucket]

    def read(self, uri: str, *, max_bytes: int, etag: str | None = None) -> bytes:
        """Return the bytes at ``s3://bucket/key``.

        Args:
            uri: the address.
            max_bytes: a larger object is refused before its content is fetched.
            etag: what the object must still have.

        Raises:
            BucketNotAllowed, ObjectNotFound, ObjectTooLarge, SourceChanged, StorageUnavailable: as they say.
        """
        address = S3Uri.parse(uri)
        return self.open(address.bucket).get(address.key, if_match=etag, max_bytes=max_bytes)
