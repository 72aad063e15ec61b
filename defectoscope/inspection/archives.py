"""Lists the images of a zip archive in pages and stores each under its content hash.

Nothing in an archive is trusted: neither the names, nor the sizes it declares, nor that it can be read at all. Members
are read one at a time within their limit and never written under their own names.
"""

from __future__ import annotations

import stat
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import PurePosixPath

from defectoscope.errors.archives import ArchiveInvalid, ArchiveMemberUnsafe, ArchiveTooLarge
from defectoscope.inspection.sources import Archive, InputBuckets, Page, Pages, SourceImage, is_item_name
from defectoscope.inspection.zip_directory import check_directory
from defectoscope.layout import pair_labels
from defectoscope.storage import S3Uri, content_key, put_content, scratch_directory

#: Members stored for one transaction. Fewer than a listing has on a page: each is read and written.
PAGE_SIZE = 100

#: The other methods of zipfile unpack without a bound: a few bytes of bzip2 become gigabytes before anybody can act.
_METHODS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
_ARCHIVE_EXTENSIONS = frozenset({".zip", ".7z", ".rar", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst"})

#: To this size an archive may unpack however small it is.
_UNSUSPICIOUS_BYTES = 2**30

#: What zipfile raises for a damaged archive, found by reading it and by flipping bits of archives.
_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, OSError, ValueError, struct.error)


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveLimits:
    """What an archive may unpack to.

    Attributes:
        max_members: files in it.
        max_member_bytes: of one of them.
        max_total_bytes: of all together; no larger archive is fetched either.
        max_ratio: of what it unpacks to, to its own size, beyond the first gigabyte. Blank images are packed a
            thousandfold, so that a single file says nothing.
    """

    max_members: int
    max_member_bytes: int
    max_total_bytes: int
    max_ratio: int = 100

    def allowance(self, archive_bytes: int) -> int:
        """Return what an archive of this size may unpack to."""
        return min(self.max_total_bytes, max(_UNSUSPICIOUS_BYTES, self.max_ratio * archive_bytes))


@dataclass(frozen=True, slots=True, kw_only=True)
class _OpenArchive:
    """An archive that is being read."""

    file: zipfile.ZipFile
    members: dict[str, zipfile.ZipInfo]
    buckets: InputBuckets
    max_member_bytes: int
    max_total_bytes: int


def list_archive(source: Archive, *, buckets: InputBuckets, limits: ArchiveLimits, after: str | None = None) -> Pages:
    """Store the images of a zip archive one by one under their content hashes and yield them in pages.

    A member that may not be read becomes an image with its error; the others go on.

    Args:
        source: the archive.
        buckets: where it lies; members go to our own bucket.
        limits: what it may unpack to.
        after: position of the last member that was recorded.

    Raises:
        ArchiveInvalid: it is not a zip file, its members overlap, or a name in it is unusable.
        ArchiveTooLarge: it has too many members.
        ObjectTooLarge: the archive itself is larger than what it may unpack to.
    """
    address = S3Uri.parse(source.uri)
    with scratch_directory("defectoscope-archive-") as scratch:
        path = scratch / "archive.zip"
        buckets.open(address.bucket).get_to_file(address.key, path, max_bytes=limits.max_total_bytes)
        archive_bytes = path.stat().st_size
        try:
            check_directory(path, max_members=limits.max_members)
            file = zipfile.ZipFile(path)
        except _DAMAGED as exc:
            raise ArchiveInvalid(f"The file is not a readable zip archive: {exc}") from exc
        with file:
            if sum(info.compress_size for info in file.infolist()) > archive_bytes:
                raise ArchiveInvalid("Members of the archive overlap, so that it unpacks to more than it holds.")
            # Not `info.is_dir()`, which fails on an empty name.
            members = {info.filename: info for info in file.infolist() if not info.filename.endswith("/")}
            if len(members) > limits.max_members:
                raise ArchiveTooLarge(f"The archive has {len(members)} files; the limit is {limits.max_members}.")
            archive = _OpenArchive(
                file=file,
                members=members,
                buckets=buckets,
                max_member_bytes=limits.max_member_bytes,
                max_total_bytes=limits.allowance(archive_bytes),
            )
            yield from _pages(archive, start=int(after) + 1 if after else 0)


def _pages(archive: _OpenArchive, *, start: int) -> Pages:
    paired = pair_labels(archive.members)
    labels = set(paired.values())
    # A dangerous label is told with its image, any other dangerous member by itself.
    dangerous = [
        name for name, info in archive.members.items() if name not in paired and name not in labels and _danger(info)
    ]
    total_bytes = 0
    page: list[SourceImage] = []
    for position, (name, label) in enumerate([*paired.items(), *((name, None) for name in dangerous)]):
        total_bytes += sum(archive.members[member].file_size for member in (name, label) if member)
        if position < start:
            continue
        page.append(_read_pair(archive, name, label, total_bytes=total_bytes))
        if len(page) == PAGE_SIZE:
            yield Page(images=page, cursor=str(position))
            page = []
    yield Page(images=page, cursor=None)


def _read_pair(archive: _OpenArchive, name: str, label: str | None, *, total_bytes: int) -> SourceImage:
    """Store an image and its label. What is wrong with the one becomes an error of it and spares the other."""
    if not is_item_name(name):
        raise ArchiveInvalid("The archive has a member with an empty or overlong name.", name=ascii(name)[:200])
    uri, error = _read_member(archive, name, total_bytes=total_bytes)
    if error is not None or label is None:
        return SourceImage(name=name, uri=uri, error=error)
    label_uri, label_error = _read_member(archive, label, total_bytes=total_bytes)
    return SourceImage(name=name, uri=uri, label_uri=label_uri or None, label_error=label_error)


def _read_member(
    archive: _OpenArchive, name: str, *, total_bytes: int
) -> tuple[str, ArchiveMemberUnsafe | ArchiveTooLarge | ArchiveInvalid | None]:
    """Return where a member was stored, or an empty address and why it was not."""
    if total_bytes > archive.max_total_bytes:
        return "", ArchiveTooLarge(f"The archive unpacks to more than {archive.max_total_bytes} bytes.")
    try:
        return _store(archive, archive.members[name]), None
    except (ArchiveMemberUnsafe, ArchiveTooLarge, ArchiveInvalid) as exc:
        return "", exc


def _store(archive: _OpenArchive, info: zipfile.ZipInfo) -> str:
    """Read one member within its limit and store it under its content hash."""
    if danger := _danger(info):
        raise ArchiveMemberUnsafe(f"The archive member {info.filename!r} was not read: {danger}.")
    if info.compress_type not in _METHODS:
        raise ArchiveInvalid(f"The archive member {info.filename!r} is not packed by deflate, the usual method.")
    if info.file_size > archive.max_member_bytes:
        raise ArchiveTooLarge(
            f"The archive member {info.filename!r} unpacks to more than {archive.max_member_bytes} bytes.",
            declared_bytes=info.file_size,
        )
    try:
        with archive.file.open(info) as member:
            # One byte more than declared: then zipfile compares the checksum, and a header that lies about the size is
            # caught without unpacking more than it said.
            data = member.read(info.file_size + 1)
    except _DAMAGED as exc:
        raise ArchiveInvalid(f"The archive member {info.filename!r} cannot be read: {exc}") from exc
    own = archive.buckets.own
    sha256 = put_content(own, data, content_type="application/octet-stream")
    return str(S3Uri(archive.buckets.own_name, content_key(sha256)))


def _danger(info: zipfile.ZipInfo) -> str | None:
    """Return why a member must not be read, or None."""
    path = PurePosixPath(info.filename.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or (path.parts and path.parts[0].endswith(":")):
        return "its path leaves the archive"
    mode = info.external_attr >> 16
    if stat.S_ISLNK(mode):
        return "it is a link"
    if stat.S_IFMT(mode) not in {0, stat.S_IFREG}:
        return "it is no plain file"
    if info.flag_bits & 0x1:
        return "it is encrypted"
    if path.suffix.lower() in _ARCHIVE_EXTENSIONS and not path.name.startswith("."):
        return "it is an archive itself"
    return None
