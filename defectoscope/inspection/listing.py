"""Lists the images of a source in pages, flat in memory, resumable from a cursor."""

from __future__ import annotations

import itertools
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from defectoscope.errors import ArchiveInvalid, ArchiveMemberUnsafe, ArchiveTooLarge, DefectoscopeError
from defectoscope.inspection.sources import Archive, InputBuckets, Page, Pages, Prefix, SourceImage
from defectoscope.layout import is_image_name, label_stem, pair_labels, stem
from defectoscope.storage import ObjectInfo, S3Uri, Storage, content_key, put_content

#: Images enumerated in one transaction.
PAGE_SIZE = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveLimits:
    """What an archive may unpack to."""

    max_members: int
    max_member_bytes: int
    max_total_bytes: int


def list_prefix(source: Prefix, *, buckets: InputBuckets, after: str | None = None) -> Pages:
    """Yield the images below a prefix in key order, each with its label where there is one.

    Args:
        source: the prefix.
        buckets: where it may lie.
        after: cursor of the last page that was recorded.
    """
    address = S3Uri.parse(source.uri)
    storage = buckets.open(address.bucket)
    base = _as_folder(address.key)
    entries = (
        entry
        for entry in storage.list(base, start_after=after)
        if entry.size_bytes > 0 and is_image_name(entry.key.removeprefix(base))
    )
    while page := list(itertools.islice(entries, PAGE_SIZE)):
        labels = _labels_of(page, base=base, bucket=address.bucket, source=source, buckets=buckets)
        images = [
            SourceImage(
                name=entry.key.removeprefix(base),
                uri=str(S3Uri(address.bucket, entry.key)),
                etag=entry.etag,
                label_uri=labels.get(entry.key),
            )
            for entry in page
        ]
        yield Page(images=images, cursor=page[-1].key)
    yield Page(images=[], cursor=None)


def _labels_of(
    page: list[ObjectInfo], *, base: str, bucket: str, source: Prefix, buckets: InputBuckets
) -> dict[str, str]:
    """Return the label address of each image key of a page.

    Images and labels are both listed in key order, so the labels of a page lie in one range for each folder: memory
    stays that of a page however many labels there are.
    """
    if source.labels_uri is None:
        wanted = {
            entry.key: base + label for entry in page if (label := label_stem(entry.key.removeprefix(base))) is not None
        }
        storage = buckets.open(bucket)
    else:
        labels_at = S3Uri.parse(source.labels_uri)
        bucket = labels_at.bucket
        wanted = {entry.key: _as_folder(labels_at.key) + stem(entry.key.removeprefix(base)) for entry in page}
        storage = buckets.open(bucket)
    by_folder: dict[str, list[str]] = {}
    for label in wanted.values():
        by_folder.setdefault(label.rpartition("/")[0] + "/", []).append(label)
    found: dict[str, str] = {}
    for folder, stems in by_folder.items():
        # A label's key is its stem and an extension: it sorts after the stem and before the stem with a slash.
        found.update(_stems_between(storage, folder, min(stems), max(label + "/" for label in stems)))
    return {image: str(S3Uri(bucket, found[label])) for image, label in wanted.items() if label in found}


def _stems_between(storage: Storage, folder: str, first: str, last: str) -> Iterator[tuple[str, str]]:
    for entry in storage.list(folder, start_after=first):
        if entry.key > last:
            return
        yield stem(entry.key), entry.key


def _as_folder(prefix: str) -> str:
    return prefix if not prefix or prefix.endswith("/") else prefix + "/"


def list_archive(source: Archive, *, buckets: InputBuckets, limits: ArchiveLimits, after: str | None = None) -> Pages:
    """Store the images of a zip archive one by one under their content hashes and yield them in pages.

    A member that may not be read becomes an image with its error; the others go on.

    Args:
        source: the archive.
        buckets: where it lies; members go to our own bucket.
        limits: what it may unpack to.
        after: position of the last member that was recorded.

    Raises:
        ArchiveInvalid: it is not a zip file.
    """
    address = S3Uri.parse(source.uri)
    with tempfile.TemporaryDirectory(prefix="defectoscope-archive-") as scratch:
        path = Path(scratch) / "archive.zip"
        buckets.open(address.bucket).get_to_file(address.key, path, max_bytes=limits.max_total_bytes)
        try:
            archive = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError) as exc:
            raise ArchiveInvalid(f"The file is not a readable zip archive: {exc}") from exc
        with archive:
            members = {info.filename: info for info in archive.infolist() if not info.is_dir()}
            if len(members) > limits.max_members:
                raise ArchiveTooLarge(f"The archive has {len(members)} files; the limit is {limits.max_members}.")
            yield from _members(archive, members, own=buckets, limits=limits, start=int(after) + 1 if after else 0)


def _members(
    archive: zipfile.ZipFile,
    members: dict[str, zipfile.ZipInfo],
    *,
    own: InputBuckets,
    limits: ArchiveLimits,
    start: int,
) -> Pages:
    paired = pair_labels(members)
    pairs = [*paired.items(), *((name, None) for name, info in members.items() if name not in paired and _danger(info))]
    total_bytes = 0
    page: list[SourceImage] = []
    for position, (name, label) in enumerate(pairs[start:], start):
        total_bytes += members[name].file_size
        try:
            _check_total(total_bytes, limits)
            uri = _store(archive, members[name], own=own, limits=limits)
            label_uri = _store(archive, members[label], own=own, limits=limits) if label else None
            page.append(SourceImage(name=name, uri=uri, label_uri=label_uri))
        except (ArchiveMemberUnsafe, ArchiveTooLarge, ArchiveInvalid) as exc:
            page.append(SourceImage(name=name, uri="", error=exc))
        if len(page) == PAGE_SIZE:
            yield Page(images=page, cursor=str(position))
            page = []
    yield Page(images=page, cursor=None)


def _check_total(total_bytes: int, limits: ArchiveLimits) -> None:
    if total_bytes > limits.max_total_bytes:
        raise ArchiveTooLarge(f"The archive unpacks to more than {limits.max_total_bytes} bytes.")


def _store(archive: zipfile.ZipFile, info: zipfile.ZipInfo, *, own: InputBuckets, limits: ArchiveLimits) -> str:
    """Read one member within its limit and store it under its content hash."""
    if danger := _danger(info):
        raise ArchiveMemberUnsafe(f"The archive member {info.filename!r} was not read: {danger}.")
    if info.file_size > limits.max_member_bytes:
        raise _too_large(info, limits)
    try:
        with archive.open(info) as member:
            # One byte more than allowed: a header that lies about the size is caught without unpacking it all.
            data = member.read(limits.max_member_bytes + 1)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, OSError) as exc:
        raise ArchiveInvalid(f"The archive member {info.filename!r} cannot be read: {exc}") from exc
    if len(data) > limits.max_member_bytes:
        raise _too_large(info, limits)
    sha256 = put_content(own.own, data, content_type="application/octet-stream")
    return str(S3Uri(own.own_name, content_key(sha256)))


def _too_large(info: zipfile.ZipInfo, limits: ArchiveLimits) -> DefectoscopeError:
    return ArchiveTooLarge(
        f"The archive member {info.filename!r} unpacks to more than {limits.max_member_bytes} bytes.",
        declared_bytes=info.file_size,
    )


def _danger(info: zipfile.ZipInfo) -> str | None:
    """Return why a member must not be read, or None."""
    path = PurePosixPath(info.filename.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or (path.parts and path.parts[0].endswith(":")):
        return "its path leaves the archive"
    if stat.S_ISLNK(info.external_attr >> 16):
        return "it is a link"
    if info.flag_bits & 0x1:
        return "it is encrypted"
    return None
