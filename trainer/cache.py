"""Objects of the storage on local disk, under the SHA-256 of their content, within a bound that is a setting.

A data set may be larger than the bound: what was used longest ago makes room, and is fetched again when its turn comes.
Threads and processes share one directory without a server between them. It refuses to hand out bytes that do not have
their hash, from the storage or from the disk.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import structlog

from defectoscope.errors.storage import DiskFull, StorageFault
from defectoscope.storage import Storage, naming_a_full_disk
from defectoscope.storage.content import check_sha256

log = structlog.get_logger(__name__)

#: Disk space comes in blocks: a label of 200 bytes takes one whole.
_BLOCK_BYTES = 4096
#: An eviction frees this part of the bound at least, so that the directory is not searched again for each file.
_FREED_SHARE = 0.1
#: Fetches of one process that may be under way at once without meeting on a lock by chance, more or less.
_LOCKS = 64

_PARTIAL_SUFFIX = ".partial"
_USAGE_NAME = ".usage"
_USAGE_DIGITS = 32


@dataclass(frozen=True, slots=True)
class _Kept:
    path: Path
    used_at_ns: int
    blocks_bytes: int


class FileCache:
    """A bounded directory of stored objects. Safe between threads and processes; it can be sent to a spawned process.

    Every change of the directory is made under one file lock, so whoever holds it may take a half-written file for what
    a killed process left behind. Reading needs no lock: a file that is evicted while it is read stays readable to its
    end.
    """

    def __init__(self, directory: Path, *, max_bytes: int, open_storage: Callable[[], Storage]) -> None:
        """Remember where and how; nothing is opened or made yet.

        Args:
            directory: for objects of this cache alone, on a local disk; made when missing.
            max_bytes: the most disk space that files take, as whole blocks of 4 KiB.
            open_storage: opens the storage once in each process, when something is missing. To be sent to another
                process it must be picklable, such as ``functools.partial(open_s3, config)``.
        """
        self._directory = directory
        self._max_bytes = max_bytes
        self._open_storage = open_storage
        self._storage: Storage | None = None
        self._begin_process()

    def read(self, key: str, sha256: str) -> bytes:
        """Return an object's content, from the disk when it is there, else from the storage.

        Args:
            key: the object.
            sha256: hash of its content, 64 hexadecimal digits.

        Raises:
            DiskFull: there is no room on the disk, although the bound would allow it.
            ObjectNotFound, StorageUnavailable, StorageDenied: as they say.
            StorageFault: the stored bytes do not have the hash.
        """
        path = self._directory / check_sha256(sha256)
        data = self._read_kept(path)
        if data is not None:
            return data
        # One thread fetches what many want, such as the empty label that most images share.
        with self._locks[int(sha256[:8], 16) % _LOCKS]:
            data = self._read_kept(path)
            if data is None:
                data = self._fetch(key, sha256)
                self._keep(path, data)
        return data

    def _read_kept(self, path: Path) -> bytes | None:
        try:
            with path.open("rb") as file:
                data = file.read()
                now_ns = time.time_ns()
                # File systems often do not keep the time of reading, so the time of writing stands in for it. Another
                # user's file may be read and not be touched; it is evicted a little early then.
                with suppress(PermissionError):
                    os.utime(file.fileno(), ns=(now_ns, now_ns))
        except FileNotFoundError:
            return None
        # A power cut can leave a name on the disk without its content. Hashing costs little beside decoding.
        if hashlib.sha256(data).hexdigest() == path.name:
            return data
        log.warning("cache.damaged", sha256=path.name, consequence="fetched again")
        with _locked(self._directory / _USAGE_NAME):
            path.unlink(missing_ok=True)
        return None

    def _fetch(self, key: str, sha256: str) -> bytes:
        # Two threads at the first fetch may open it twice, and one of the two is let go.
        if self._storage is None:
            self._storage = self._open_storage()
        data = self._storage.get(key)
        if hashlib.sha256(data).hexdigest() != sha256:
            raise StorageFault(f"The object {key} is not what was stored there: its hash differs.", key=key)
        return data

    def _keep(self, path: Path, data: bytes) -> None:
        needed_bytes = _in_blocks(len(data))
        if needed_bytes > self._max_bytes:
            return
        with _naming_a_full_disk(self._directory):
            self._directory.mkdir(parents=True, exist_ok=True)
            with _locked(self._directory / _USAGE_NAME) as usage:
                used_bytes = _read_usage(usage) if self._is_swept else None
                if used_bytes is None:
                    used_bytes = self._sweep()
                if path.exists():
                    # Another process was quicker.
                    return
                if used_bytes + needed_bytes > self._max_bytes:
                    used_bytes = self._evict(down_to_bytes=self._max_bytes - needed_bytes)
                # Counted before it is written: a process killed in between leaves a figure that is too high, which an
                # eviction corrects, and never one that is too low.
                _write_usage(usage, used_bytes + needed_bytes)
                partial = path.with_name(path.name + _PARTIAL_SUFFIX)
                try:
                    partial.write_bytes(data)
                    partial.replace(path)
                except OSError:
                    partial.unlink(missing_ok=True)
                    raise

    def _sweep(self) -> int:
        """Remove what killed processes left half-written, and count what is there; the lock is held.

        Returns:
            The disk space in use, bytes.
        """
        used_bytes = 0
        for kept in self._scan():
            if kept.path.suffix == _PARTIAL_SUFFIX:
                kept.path.unlink(missing_ok=True)
            else:
                used_bytes += kept.blocks_bytes
        self._is_swept = True
        return used_bytes

    def _evict(self, *, down_to_bytes: int) -> int:
        """Remove the files used longest ago; the lock is held.

        Returns:
            The disk space in use afterwards, bytes.
        """
        kept = sorted(self._scan(), key=lambda file: file.used_at_ns)
        used_bytes = sum(file.blocks_bytes for file in kept)
        wanted_bytes = min(down_to_bytes, int(self._max_bytes * (1 - _FREED_SHARE)))
        evicted = 0
        for file in kept:
            if used_bytes <= wanted_bytes:
                break
            file.path.unlink(missing_ok=True)
            used_bytes -= file.blocks_bytes
            evicted += 1
        log.debug("cache.evicted", files=evicted, used_bytes=used_bytes, max_bytes=self._max_bytes)
        return used_bytes

    def _scan(self) -> Iterator[_Kept]:
        with os.scandir(self._directory) as entries:
            for entry in entries:
                # A person who needs the space may delete files at any time.
                with suppress(FileNotFoundError):
                    facts = entry.stat(follow_symlinks=False)
                    if entry.name != _USAGE_NAME and stat.S_ISREG(facts.st_mode):
                        yield _Kept(Path(entry.path), facts.st_mtime_ns, _in_blocks(facts.st_size))

    def _begin_process(self) -> None:
        """Start as in a fresh process: connections and locks cannot be shared with another one."""
        self._storage = None
        self._locks = tuple(threading.Lock() for _ in range(_LOCKS))
        self._is_swept = False

    def __getstate__(self) -> dict[str, object]:
        return {name: getattr(self, name) for name in ("_directory", "_max_bytes", "_open_storage")}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._begin_process()


@contextmanager
def _locked(path: Path) -> Iterator[int]:
    """Hold the one lock of a directory, against other threads as well: each opens the file for itself.

    Yields:
        The descriptor of the file, whose content is the disk space in use.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        # The lock ends with the descriptor, also when the process is killed.
        os.close(descriptor)


def _read_usage(descriptor: int) -> int | None:
    digits = os.pread(descriptor, _USAGE_DIGITS, 0)
    return int(digits) if digits.isdigit() else None


def _write_usage(descriptor: int, used_bytes: int) -> None:
    os.pwrite(descriptor, str(used_bytes).zfill(_USAGE_DIGITS).encode(), 0)


def _in_blocks(size_bytes: int) -> int:
    return -(-size_bytes // _BLOCK_BYTES) * _BLOCK_BYTES


@contextmanager
def _naming_a_full_disk(directory: Path) -> Iterator[None]:
    try:
        with naming_a_full_disk(directory):
            yield
    except DiskFull as exc:
        raise DiskFull(
            f"The disk of {directory} is full; free some space or lower DEFECTOSCOPE_TRAINER__CACHE_BYTES.",
            **exc.details,
        ) from exc
