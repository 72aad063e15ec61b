"""Makes sure that one Defectoscope at a time runs on a data directory."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from defectoscope.embedded.private_files import private_directory
from defectoscope.errors.installation import DataDirectoryBusy

_RETRY_S = 0.1


class DataDirectoryLock:
    """The exclusive right to a data directory, held while its file descriptor is open anywhere.

    The guardians of the servers inherit the descriptor. When we are killed they end their servers first and then
    disappear, and only then is the directory free: a new start never meets a server that is still writing.

    Args:
        data_dir: The data directory; created with mode 0700 when absent.
        patience_s: How long to wait for the servers of an owner that is dead.

    Raises:
        DataDirectoryBusy: Another live process holds it.
    """

    def __init__(self, data_dir: Path, *, patience_s: float = 15.0) -> None:
        private_directory(data_dir)
        self.descriptor = os.open(data_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline = time.monotonic() + patience_s
        while not self._try():
            if _lives(self._owner()) or time.monotonic() >= deadline:
                os.close(self.descriptor)
                raise DataDirectoryBusy(
                    f"Another Defectoscope runs on {data_dir}; stop it, choose another data directory, or use servers "
                    "of your own with DEFECTOSCOPE_DATABASE__URL, DEFECTOSCOPE_QUEUE__URL and "
                    "DEFECTOSCOPE_STORAGE__ENDPOINT_URL.",
                    data_dir=str(data_dir),
                )
            time.sleep(_RETRY_S)
        os.ftruncate(self.descriptor, 0)
        os.pwrite(self.descriptor, str(os.getpid()).encode(), 0)

    def release(self) -> None:
        """Give the directory back; call it after the servers have ended."""
        os.close(self.descriptor)

    def _try(self) -> bool:
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _owner(self) -> int:
        written = os.pread(self.descriptor, 32, 0)
        # Empty between the owner's lock and its writing: it lives, then, and so do we.
        return int(written) if written.isdigit() else os.getpid()


def _lives(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
