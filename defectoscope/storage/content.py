"""Stores bytes under the SHA-256 of their content, so that equal content is stored once and never changes.

It refuses to overwrite: an object that exists under its own hash is already the right one.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from defectoscope.errors.storage import InvalidStorageKey
from defectoscope.storage.contract import Storage

_SHA256_HEX = re.compile(r"[0-9a-f]{64}")


def content_key(sha256: str) -> str:
    """Return the key of the content with this hash, `objects/sha256/ab/ab...`.

    Args:
        sha256: 64 lower-case hexadecimal digits.

    Raises:
        InvalidStorageKey: `sha256` is something else.
    """
    return f"objects/sha256/{check_sha256(sha256)[:2]}/{sha256}"


def check_sha256(sha256: str) -> str:
    """Return the hash when it is written as a SHA-256 is.

    Raises:
        InvalidStorageKey: `sha256` is something else.
    """
    if not _SHA256_HEX.fullmatch(sha256):
        raise InvalidStorageKey("A SHA-256 is written as 64 lower-case hexadecimal digits.", sha256=ascii(sha256)[:100])
    return sha256


def put_content(storage: Storage, data: bytes, *, content_type: str) -> str:
    """Store bytes under their hash, once.

    Args:
        storage: Where to.
        data: The content.
        content_type: Media type; that of the first writer stays.

    Returns:
        The SHA-256 in hexadecimal; `content_key` turns it into the key.

    Raises:
        StorageUnavailable: The storage does not answer; calling again is safe.
    """
    sha256 = hashlib.sha256(data).hexdigest()
    storage.put_if_absent(content_key(sha256), data, content_type=content_type)
    return sha256


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file's content in hexadecimal, in flat memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
