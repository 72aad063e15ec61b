"""Reads and writes `s3://bucket/key` addresses. It refuses anything it would have to guess about."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

from defectoscope.errors.storage import InvalidStorageKey, InvalidStorageUri
from defectoscope.storage.keys import check_prefix

_SCHEME = "s3://"
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


def check_bucket(name: str) -> str:
    """Return the name when a bucket may have it.

    Raises:
        InvalidStorageUri: It may not.
    """
    if not _BUCKET.fullmatch(name) or ".." in name:
        raise InvalidStorageUri(
            "The bucket name must have 3 to 63 lower-case letters, digits, dots or hyphens.", bucket=ascii(name)[:200]
        )
    return name


@dataclass(frozen=True, slots=True)
class S3Uri:
    """An address in object storage.

    Attributes:
        bucket: Name of the bucket, 3 to 63 lower-case letters, digits, dots and hyphens.
        key: A key or a prefix; empty for the whole bucket. It is taken literally: `%20` is three characters.
    """

    bucket: str
    key: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read an address such as `s3://images/line-3/`.

        Raises:
            InvalidStorageUri: The text is not such an address.
        """
        if not text.startswith(_SCHEME):
            raise InvalidStorageUri(uri=ascii(text)[:200])
        bucket, _, key = text.removeprefix(_SCHEME).partition("/")
        check_bucket(bucket)
        try:
            check_prefix(key)
        except InvalidStorageKey as exc:
            raise InvalidStorageUri(exc.message, **exc.details) from exc
        return cls(bucket, key)

    def __str__(self) -> str:
        return f"{_SCHEME}{self.bucket}/{self.key}"
