"""Model files as a process needs them: on local disk, verified by hash, fetched once."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

from sqlalchemy import select

from defectoscope.database import Database, ModelVariant
from defectoscope.errors import Fault, ModelVersionNotFound
from defectoscope.registry.versions import find_version
from defectoscope.storage import Storage


def fetch_variant(*, database: Database, storage: Storage, number: int, precision: str, directory: Path) -> Path:
    """Return the local path of a model version's file, downloading it when it is not in the directory yet.

    Args:
        database: where versions are recorded.
        storage: where their files lie.
        number: the version.
        precision: fp32, fp16 or int8.
        directory: the local cache; files are named by content hash, so processes may share it.

    Raises:
        ModelVersionNotFound: no such version, or it has no such variant.
        Fault: the stored bytes do not have the recorded hash.
    """
    with database.transaction() as session:
        version = find_version(session, number)
        variant = session.scalar(
            select(ModelVariant).where(ModelVariant.model_version_id == version.id, ModelVariant.precision == precision)
        )
    if variant is None:
        raise ModelVersionNotFound(f"Model version {number} has no {precision} variant.", number=number)
    path = directory / f"{variant.sha256}.onnx"
    if path.exists() and _sha256(path) == variant.sha256:
        return path
    directory.mkdir(parents=True, exist_ok=True)
    descriptor, partial = tempfile.mkstemp(dir=directory, suffix=".partial")
    os.close(descriptor)
    try:
        storage.get_to_file(variant.key, Path(partial))
        if _sha256(Path(partial)) != variant.sha256:
            raise Fault(f"The stored file of model version {number} does not have its recorded hash.", key=variant.key)
        # Renamed when whole: another process sees a complete file or none.
        Path(partial).replace(path)
    finally:
        Path(partial).unlink(missing_ok=True)
    return path


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
