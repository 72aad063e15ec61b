"""Walks the directory of a zip archive before `zipfile` does, so that a directory of millions fills no memory.

`zipfile` reads a directory whole and makes an object of every entry before anybody can count them: a few gigabytes of
entries become a hundred. The walk holds one entry at a time. What is damaged is left for `zipfile` to name.
"""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path

from defectoscope.errors.archives import ArchiveTooLarge

#: An entry for a folder may stand beside that of each file in it.
_ENTRIES_PER_MEMBER = 2
#: A name of 1024 bytes and its extra fields, twice over.
_BYTES_PER_ENTRY = 2048
_LEAST_BYTES = 2**20

_ENTRY = struct.Struct("<4s24xHHH12x")
_ENTRY_BEGINS = b"PK\x01\x02"
_BEGINS_64 = b"PK\x06\x06"
#: What stands between the directory and the end of an archive with 64-bit sizes: another record, and its address.
_BYTES_64 = 56 + 20
_SIZE, _PLACE = 5, 9


def check_directory(path: Path, *, max_members: int) -> None:
    """Refuse an archive whose directory is too long to be read whole.

    Args:
        path: of the archive; anything else than an archive passes, for `zipfile` to refuse.
        max_members: files that it may have.

    Raises:
        ArchiveTooLarge: it has more entries than that many files and their folders need.
    """
    most = _ENTRIES_PER_MEMBER * max_members
    with path.open("rb") as file:
        # The library's own search, since another one might find another directory in the same file.
        end = zipfile._EndRecData(file)  # type: ignore[attr-defined]  # noqa: SLF001
        if end is None:
            return
        size = int(end[_SIZE])
        if size > max(_LEAST_BYTES, _BYTES_PER_ENTRY * most):
            raise ArchiveTooLarge(f"The directory of the archive has {size} bytes.", directory_bytes=size)
        file.seek(max(0, int(end[_PLACE]) - size - (_BYTES_64 if end[0] == _BEGINS_64 else 0)))
        count = 0
        while size > 0:
            head = file.read(_ENTRY.size)
            if len(head) < _ENTRY.size or not head.startswith(_ENTRY_BEGINS):
                return
            variable = sum(_ENTRY.unpack(head)[1:])
            file.seek(variable, 1)
            size -= _ENTRY.size + variable
            count += 1
            if count > most:
                raise ArchiveTooLarge(f"The archive has more than {most} entries.", max_entries=most)
