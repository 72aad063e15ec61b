"""Lists the images that a manifest names, in pages: a CSV file in storage, of any length, resumable from a cursor.

The first line names the columns: ``uri``, and in any order, if wanted, ``name`` (unique in the job; by default the key
of the address), ``label_uri`` and ``etag`` (what the object must still have when it is read). The file is read once,
from beginning to end, and never held in memory. What is wrong with it ends the reading by the number of the line; what
is wrong with an address becomes the error of its image.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from defectoscope.errors.images import SourceChanged
from defectoscope.errors.jobs import ManifestInvalid
from defectoscope.errors.storage import BucketNotAllowed, InvalidStorageUri
from defectoscope.inspection.sources import InputBuckets, Manifest, Page, Pages, SourceImage, is_item_name
from defectoscope.storage import S3Uri, scratch_directory

#: Images enumerated in one transaction.
PAGE_SIZE = 1000
#: Two addresses and a name fit three times over. Without a bound, a file without line ends would be read whole.
MAX_LINE_BYTES = 16_384

_COLUMNS = ("uri", "name", "label_uri", "etag")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(slots=True)
class _Lines:
    """The lines of a file, and how far reading has come: what a CSV reader has taken is known to the byte."""

    file: BinaryIO
    offset: int
    number: int

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self.file.readline(MAX_LINE_BYTES + 1)
        if not line:
            raise StopIteration
        self.number += 1
        if len(line) > MAX_LINE_BYTES:
            raise ManifestInvalid(f"Line {self.number} of the manifest has more than {MAX_LINE_BYTES} bytes.")
        text = line.removeprefix(_BYTE_ORDER_MARK) if self.offset == 0 else line
        self.offset += len(line)
        try:
            return text.decode()
        except UnicodeDecodeError as exc:
            raise ManifestInvalid(f"Line {self.number} of the manifest is no text in UTF-8.") from exc


def list_manifest(source: Manifest, *, buckets: InputBuckets, max_bytes: int, after: str | None = None) -> Pages:
    """Yield the images of a manifest in its order.

    Args:
        source: the manifest.
        buckets: where it and its images may lie.
        max_bytes: a longer manifest is refused.
        after: cursor of the last page that was recorded.

    Raises:
        ManifestInvalid: a line cannot be read; what was on the pages before is good.
        ObjectNotFound, ObjectTooLarge, BucketNotAllowed: the manifest itself cannot be had.
        SourceChanged: it is another file than the one that was begun.
    """
    address = S3Uri.parse(source.uri)
    storage = buckets.open(address.bucket)
    etag = storage.head(address.key).etag
    begun_etag, offset, number = json.loads(after) if after else (etag, 0, 0)
    if begun_etag != etag:
        raise SourceChanged("The manifest was replaced while its images were being listed.", uri=source.uri)
    with scratch_directory("defectoscope-manifest-") as scratch:
        path = scratch / "manifest.csv"
        storage.get_to_file(address.key, path, max_bytes=max_bytes)
        with path.open("rb") as file:
            lines = _Lines(file=file, offset=0, number=0)
            columns = _read_header(lines)
            if offset:
                file.seek(offset)
                lines.offset, lines.number = offset, number
            yield from _pages(lines, columns, buckets=buckets, etag=etag)


def _read_header(lines: _Lines) -> list[str]:
    columns = [column.strip() for column in next(_records(lines), [])]
    if "uri" not in columns or len(set(columns)) < len(columns) or not set(columns) <= set(_COLUMNS):
        raise ManifestInvalid(
            f"Line 1 of the manifest must name its columns: uri and, if wanted, name, label_uri and etag; it holds "
            f"{ascii(','.join(columns))[:200]}."
        )
    return columns


def _records(lines: _Lines) -> Iterator[list[str]]:
    try:
        yield from csv.reader(lines, strict=True)
    except csv.Error as exc:
        raise ManifestInvalid(f"Line {lines.number} of the manifest is no CSV: {exc}.") from exc


def _pages(lines: _Lines, columns: Sequence[str], *, buckets: InputBuckets, etag: str | None) -> Pages:
    images: list[SourceImage] = []
    numbers: dict[str, int] = {}
    for values in _records(lines):
        if not values:
            continue
        image = _read_image(values, columns, buckets=buckets, line=lines.number)
        if image.name in numbers:
            raise repeated_name(image.name, line=lines.number)
        numbers[image.name] = lines.number
        images.append(image)
        if len(images) == PAGE_SIZE:
            cursor = json.dumps([etag, lines.offset, lines.number])
            yield Page(images=images, cursor=cursor, lines=tuple(numbers.values()))
            images, numbers = [], {}
    yield Page(images=images, cursor=None, lines=tuple(numbers.values()))


def repeated_name(name: str, *, line: int) -> ManifestInvalid:
    """Return the error about a name that an earlier line of the manifest has too."""
    return ManifestInvalid(
        f"Line {line} of the manifest repeats the name {ascii(name)[:200]}; names must be unique within a job.",
        line=line,
    )


def _read_image(values: Sequence[str], columns: Sequence[str], *, buckets: InputBuckets, line: int) -> SourceImage:
    if len(values) != len(columns):
        raise ManifestInvalid(
            f"Line {line} of the manifest has {len(values)} values for {len(columns)} columns.", line=line
        )
    row = dict(zip(columns, values, strict=True))
    uri, label_uri = row["uri"].strip(), row.get("label_uri", "").strip()
    error = _problem(uri, buckets)
    name = row.get("name") or (uri if error is not None else S3Uri.parse(uri).key)
    if not is_item_name(name):
        raise ManifestInvalid(f"Line {line} of the manifest has no usable name: {ascii(name)[:200]}.", line=line)
    return SourceImage(
        name=name,
        uri=uri,
        etag=row.get("etag", "").strip() or None,
        label_uri=label_uri or None,
        error=error,
        label_error=_problem(label_uri, buckets) if label_uri else None,
    )


def _problem(uri: str, buckets: InputBuckets) -> InvalidStorageUri | BucketNotAllowed | None:
    """Return why there can be nothing to read at an address, or None."""
    try:
        address = S3Uri.parse(uri)
        buckets.open(address.bucket)
    except (InvalidStorageUri, BucketNotAllowed) as exc:
        return exc
    return None
