"""A file system of a few megabytes that can be filled to its last byte and freed again: a real one, in memory."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

_BALLAST = "ballast"
#: Large pieces first, then whatever still fits.
_PIECES_BYTES = (2**20, 4096, 64, 1)
#: What its owner lets go while the disk is full is taken at once.
_FILL_EVERY_S = 0.05


@dataclass(frozen=True, slots=True)
class SmallDisk:
    """A mounted file system.

    Attributes:
        directory: where it is mounted.
    """

    directory: Path

    @contextmanager
    def full(self) -> Iterator[None]:
        """Leave not a byte, and keep it so until the block is left."""
        self._fill()
        freed = threading.Event()
        thread = threading.Thread(target=self._keep_full, args=(freed,), name=f"ballast of {self.directory}")
        thread.start()
        try:
            yield
        finally:
            freed.set()
            thread.join()
            (self.directory / _BALLAST).unlink()

    def _keep_full(self, freed: threading.Event) -> None:
        while not freed.wait(_FILL_EVERY_S):
            self._fill()

    def _fill(self) -> None:
        with (self.directory / _BALLAST).open("ab", buffering=0) as ballast:
            # Whoever owns the directory looks at all that is in it.
            owner = self.directory.stat()
            os.fchown(ballast.fileno(), owner.st_uid, owner.st_gid)
            for size_bytes in _PIECES_BYTES:
                try:
                    while True:
                        ballast.write(bytes(size_bytes))
                except OSError as exc:
                    if exc.errno != errno.ENOSPC:
                        raise


@contextmanager
def small_disk(directory: Path, *, size_mib: int) -> Iterator[SmallDisk]:
    """Put a directory, with what is in it, on a small file system of its own.

    Where mounting is not allowed the test fails and says so: a full disk that was not tried was not survived.
    """
    status = directory.stat()
    aside = directory.with_name(f"{directory.name}.aside")
    directory.rename(aside)
    directory.mkdir()
    options = f"size={size_mib}m,mode={stat.S_IMODE(status.st_mode):o},uid={status.st_uid},gid={status.st_gid}"
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "defectoscope-test", str(directory)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode != 0:
        pytest.fail(
            "A full disk is tried on a small file system, and this user may not mount one "
            f"({mounted.stderr.strip()}). Run the test as root; a container needs the capability SYS_ADMIN."
        )
    try:
        subprocess.run(["cp", "-a", f"{aside}/.", str(directory)], check=True)
        yield SmallDisk(directory)
    finally:
        # Lazily: a process that is about to end may still have a file open.
        subprocess.run(["umount", "--lazy", str(directory)], check=True)
