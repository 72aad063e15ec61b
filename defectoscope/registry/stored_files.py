"""Model files in storage: under their content hash, read back before they count, deleted when no version has them.

Two versions can have a file of the same content. Whoever stores or deletes such a file holds a lock on its hash until
the transaction ends, so that a file is never deleted while somebody records that it is there.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from defectoscope.database import Database, ModelVariant, ModelVersion
from defectoscope.errors import Fault
from defectoscope.errors.storage import ObjectNotFound
from defectoscope.storage import Storage, hash_file

#: Extensions, which are part of the keys.
ONNX = ".onnx"
WEIGHTS = ".safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """A model file in storage.

    Attributes:
        key: where it lies.
        sha256: of its bytes, in hexadecimal.
        size_bytes: how many there are.
    """

    key: str
    sha256: str
    size_bytes: int


def key_of(sha256: str, extension: str) -> str:
    """Return where the file with this content lies, or lay."""
    return f"models/{sha256}{extension}"


def store_file(session: Session, storage: Storage, path: Path, *, extension: str) -> StoredFile:
    """Store a file under its hash and read it back; one that is there already and whole is not sent again.

    Args:
        session: of the transaction that records the file; the hash stays locked until it ends.
        storage: where to.
        path: of the file. Scratch of its size is needed beside it.
        extension: of its key, `ONNX` or `WEIGHTS`.

    Raises:
        Fault: what is stored is not what was sent.
    """
    sha256 = hash_file(path)
    stored = StoredFile(key=key_of(sha256, extension), sha256=sha256, size_bytes=path.stat().st_size)
    _lock_content(session, sha256)
    if not _is_whole(storage, stored, scratch_dir=path.parent):
        storage.put_file(stored.key, path, content_type="application/octet-stream")
        if not _is_whole(storage, stored, scratch_dir=path.parent):
            raise Fault(f"The stored model file {stored.key} is not the file that was sent.", key=stored.key)
    return stored


def delete_unreferenced(*, database: Database, storage: Storage, key: str, sha256: str) -> bool:
    """Delete a file unless a version still has it.

    Args:
        database: says who has it.
        storage: where it lies.
        key: of the file.
        sha256: of its content.

    Returns:
        Whether it was deleted, or was gone before.

    Raises:
        StorageUnavailable: the storage does not answer; calling again is safe.
    """
    with database.transaction() as session:
        _lock_content(session, sha256)
        is_variant = select(ModelVariant.id).where(ModelVariant.key == key).limit(1)
        is_weights = select(ModelVersion.id).where(ModelVersion.weights_key == key).limit(1)
        if session.scalar(select(or_(is_variant.exists(), is_weights.exists()))):
            return False
        # Inside the transaction: the lock must outlast the deletion.
        storage.delete([key])
        return True


def _lock_content(session: Session, sha256: str) -> None:
    session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(f"models/{sha256}", 0))))


def _is_whole(storage: Storage, file: StoredFile, *, scratch_dir: Path) -> bool:
    """Say whether an object with these very bytes is stored, by reading it: a listing proves nothing about content."""
    try:
        if storage.head(file.key).size_bytes != file.size_bytes:
            return False
        descriptor, scratch = tempfile.mkstemp(dir=scratch_dir, suffix=".readback")
        os.close(descriptor)
        try:
            storage.get_to_file(file.key, Path(scratch))
            return hash_file(Path(scratch)) == file.sha256
        finally:
            Path(scratch).unlink(missing_ok=True)
    except ObjectNotFound:
        return False
