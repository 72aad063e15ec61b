"""Gives a name to a local disk without room, which is neither the caller's doing nor the object storage's.

What needs room here is scratch: a copy of an object, a body that is being received. It is given up and made again when
there is room, so that the error says "later" and never ends the work that needed it.
"""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from defectoscope.errors.storage import DiskFull

#: Nothing left of the disk, nothing left of the quota.
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})


def is_disk_full(error: BaseException | None) -> bool:
    """Say whether a file could not be written for want of room."""
    return isinstance(error, OSError) and error.errno in NO_ROOM


@contextmanager
def naming_a_full_disk(directory: Path) -> Iterator[None]:
    """Write files; a disk without room leaves as our error.

    Args:
        directory: where they are written.

    Raises:
        DiskFull: there is no room; other errors of the system pass as they are.
    """
    try:
        yield
    except OSError as exc:
        if not is_disk_full(exc):
            raise
        raise DiskFull(f"The disk of {directory} is full; free some of it.", directory=str(directory)) from exc


@contextmanager
def scratch_directory(prefix: str) -> Iterator[Path]:
    """Make an empty directory where temporary files go, and delete it in the end.

    Raises:
        DiskFull: it cannot be made.
    """
    with naming_a_full_disk(Path(tempfile.gettempdir())):
        made = tempfile.TemporaryDirectory(prefix=prefix)
    with made as directory:
        yield Path(directory)
