"""Retirement: a version is never put into service again; its files may go, its record stays for ever."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from defectoscope.database import Database, Job, JobState, LedgerAction, ModelVariant, ModelVersion
from defectoscope.errors.models import ModelInService, ModelInUse, ModelRetired
from defectoscope.registry.ledger import append_line, lock_ledger
from defectoscope.registry.stored_files import ONNX, WEIGHTS, delete_unreferenced, key_of
from defectoscope.registry.versions import champion_or_none, find_version
from defectoscope.storage import Storage

_UNFINISHED = (JobState.PENDING, JobState.RUNNING)


@dataclass(frozen=True, slots=True)
class _File:
    key: str
    sha256: str


def retire(
    *, database: Database, storage: Storage, number: int, actor: str, reason: str, drop_weights: bool = False
) -> None:
    """Retire a version. Jobs may still name it, for as long as its files are there.

    With `drop_weights` its files are deleted after the commit, except those whose content another version has. Calling
    that again, for a version that was retired with or without, is safe: it drops what is left, and writes a line only
    where there was something to drop.

    Args:
        database: where the ledger is.
        storage: where the files lie.
        number: of the version.
        actor: who decided.
        reason: why.
        drop_weights: whether its files go.

    Raises:
        ModelVersionNotFound: no such number.
        ModelInService: it is the champion.
        ModelInUse: its files are to go, and a job that has not ended needs them; it was not retired either.
        ModelRetired: it is retired already, and nothing else was asked for.
        InvalidRequest: actor or reason is empty.
        StorageUnavailable: it is recorded, but a file could not be deleted; calling again deletes it.
    """
    with database.transaction() as session:
        lock_ledger(session)
        # Waits for jobs that are being recorded on it, and those after wait for this.
        version = session.get_one(ModelVersion, find_version(session, number).id, with_for_update=True)
        champion = champion_or_none(session)
        if champion is not None and champion.id == version.id:
            raise ModelInService(
                f"Model version {number} is in service; promote another one or roll back first.", number=number
            )
        if version.retired_at is None:
            line = append_line(
                session,
                action=LedgerAction.RETIRED,
                version=version,
                actor=actor,
                reason=reason,
                figures={},
                message=f"Model version {number} was retired.",
            )
            version.retired_at = line.created_at
        elif not drop_weights:
            raise ModelRetired(f"Model version {number} was retired before.", number=number)
        files = _files_of(session, version) if drop_weights else []
        if drop_weights and version.weights_dropped_at is None:
            _check_unused(session, version)
            _drop(session, version, actor=actor, reason=reason)
    for file in files:
        delete_unreferenced(database=database, storage=storage, key=file.key, sha256=file.sha256)


def _files_of(session: Session, version: ModelVersion) -> list[_File]:
    """Return where a version's files lie, or lay: the hashes of dropped files stay in the record."""
    hashes = session.scalars(
        select(ModelVariant.sha256).where(ModelVariant.model_version_id == version.id, ModelVariant.sha256.is_not(None))
    )
    files = [_File(key_of(sha256, ONNX), sha256) for sha256 in hashes if sha256 is not None]
    if version.weights_sha256 is not None:
        files.append(_File(key_of(version.weights_sha256, WEIGHTS), version.weights_sha256))
    return files


def _check_unused(session: Session, version: ModelVersion) -> None:
    jobs = session.scalars(
        select(Job.id).where(Job.model_version_id == version.id, Job.state.in_(_UNFINISHED)).order_by(Job.id)
    ).all()
    if jobs:
        which = f"job {jobs[0]}" if len(jobs) == 1 else f"{len(jobs)} jobs, the first of them job {jobs[0]},"
        raise ModelInUse(
            f"The files of model version {version.number} are needed: {which} has not ended.", job_ids=list(jobs[:100])
        )


def _drop(session: Session, version: ModelVersion, *, actor: str, reason: str) -> None:
    variants = session.scalars(
        select(ModelVariant).where(ModelVariant.model_version_id == version.id, ModelVariant.key.is_not(None))
    ).all()
    dropped_bytes = sum(variant.size_bytes or 0 for variant in variants)
    line = append_line(
        session,
        action=LedgerAction.WEIGHTS_DROPPED,
        version=version,
        actor=actor,
        reason=reason,
        figures={
            "files": [variant.sha256 for variant in variants],
            "weights": version.weights_sha256,
            "bytes": dropped_bytes,
        },
        message=f"The files of model version {version.number} were dropped.",
    )
    version.weights_dropped_at = line.created_at
    version.weights_key = None
    for variant in variants:
        variant.key = None
