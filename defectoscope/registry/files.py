"""Model files as a process needs them: on local disk, verified by hash, fetched once."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from defectoscope.database import Database
from defectoscope.errors import Fault
from defectoscope.errors.models import ModelVariantUnavailable, ModelWeightsDropped
from defectoscope.registry.stored_files import ONNX, WEIGHTS
from defectoscope.registry.versions import find_file, find_version
from defectoscope.storage import Storage, hash_file, naming_a_full_disk


def fetch_variant(*, database: Database, storage: Storage, number: int, precision: str, directory: Path) -> Path:
    """Return the local path of a model version's file, downloading it when it is not in the directory yet.

    Args:
        database: where versions are recorded.
        storage: where their files lie.
        number: the version.
        precision: fp32, fp16 or int8.
        directory: the local cache; files are named by content hash, so processes may share it.

    Raises:
        ModelVersionNotFound: there is no such version.
        ModelWeightsDropped: its files were dropped.
        ModelVariantUnavailable: it has no such variant, or the variant was not published.
        Fault: the stored bytes do not have the recorded hash.
        DiskFull: there is no room for the file.
    """
    with database.transaction() as session:
        variant = find_file(session, number, precision)
    return _fetch(storage, variant.key, variant.sha256, number=number, path=directory / f"{variant.sha256}{ONNX}")


def fetch_weights(*, database: Database, storage: Storage, number: int, directory: Path) -> Path:
    """Return the local path of a version's weights (safetensors), to fine-tune from; otherwise as `fetch_variant`.

    Raises:
        ModelVersionNotFound: there is no such version.
        ModelWeightsDropped: its files were dropped.
        ModelVariantUnavailable: it came without weights, as imported versions do.
        Fault: the stored bytes do not have the recorded hash.
    """
    with database.transaction() as session:
        version = find_version(session, number)
    if version.weights_dropped_at is not None:
        raise ModelWeightsDropped(f"The files of model version {number} were dropped.", number=number)
    if version.weights_key is None:
        raise ModelVariantUnavailable(f"Model version {number} has no weights to train from.", number=number)
    path = directory / f"{version.weights_sha256}{WEIGHTS}"
    return _fetch(storage, version.weights_key, version.weights_sha256, number=number, path=path)


def _fetch(storage: Storage, key: str | None, sha256: str | None, *, number: int, path: Path) -> Path:
    if key is None or sha256 is None:
        raise Fault(f"The record of model version {number} names no file.", number=number)
    if path.exists() and hash_file(path) == sha256:
        return path
    with naming_a_full_disk(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, partial = tempfile.mkstemp(dir=path.parent, suffix=".partial")
    os.close(descriptor)
    try:
        storage.get_to_file(key, Path(partial))
        if hash_file(Path(partial)) != sha256:
            raise Fault(f"The stored file of model version {number} does not have its recorded hash.", key=key)
        # Renamed when whole: another process sees a complete file or none.
        Path(partial).replace(path)
    finally:
        Path(partial).unlink(missing_ok=True)
    return path
