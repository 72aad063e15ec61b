"""Model versions: published only after their file is stored and checked, promoted through an append-only ledger."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sqlalchemy import func, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from defectoscope.database import (
    Champion,
    Database,
    Evaluation,
    EvaluationImage,
    ModelVariant,
    ModelVersion,
    Promotion,
)
from defectoscope.errors import Fault, ModelNotReady, ModelVersionNotFound
from defectoscope.segmentation import ModelContract, PixelCounts
from defectoscope.storage import Storage

#: The only scope so far: one champion for the whole installation.
DEFAULT_SCOPE = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantFile:
    """A model file that passed its parity check."""

    precision: str
    path: Path
    parity: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageEvaluation:
    """Pixel counts of one validation image."""

    image_id: int
    counts: PixelCounts


def _reserve_number(session: Session) -> int:
    """Return the next version number; concurrent callers wait, so that numbers have no gaps.

    The advisory lock is held until the transaction ends: reserve in the transaction that publishes.
    """
    session.execute(text("SELECT pg_advisory_xact_lock(hashtext('model_versions.number'))"))
    return (session.scalar(select(func.max(ModelVersion.number))) or 0) + 1


def publish(
    *,
    database: Database,
    storage: Storage,
    contract: ModelContract,
    build: Callable[[ModelContract], Sequence[VariantFile]],
    training_run_id: int | None,
    dataset_revision_id: int | None,
    evaluation: Sequence[ImageEvaluation] = (),
) -> int:
    """Number a version, have its files written with that number inside, store them, then make it visible.

    One transaction from the number to the row: whoever dies in between leaves no gap and no half-made version.

    Args:
        database: where the version is recorded.
        storage: where its files go, under their content hashes.
        contract: what the files' own metadata will say; ``version`` is filled in here.
        build: writes the files for a numbered contract, one for each precision, parity already checked.
        training_run_id: the run it came from; publishing the same run twice returns the first version.
        dataset_revision_id: what it was trained on.
        evaluation: pixel counts of the served fp32 file on the validation images.

    Returns:
        The version's number.
    """
    with database.transaction() as session:
        number = _reserve_number(session)
        if training_run_id is not None:
            known = session.scalar(select(ModelVersion.number).where(ModelVersion.training_run_id == training_run_id))
            if known is not None:
                return known
        numbered = replace(contract, version=number)
        version = ModelVersion(
            number=number,
            contract=numbered.to_metadata(),
            training_run_id=training_run_id,
            dataset_revision_id=dataset_revision_id,
        )
        session.add(version)
        session.flush()
        for variant in build(numbered):
            key, sha256 = _upload(storage, variant.path)
            session.add(
                ModelVariant(
                    model_version_id=version.id,
                    precision=variant.precision,
                    key=key,
                    sha256=sha256,
                    size_bytes=variant.path.stat().st_size,
                    parity=variant.parity,
                )
            )
        if evaluation and dataset_revision_id is not None:
            _record_evaluation(session, version.id, dataset_revision_id, evaluation)
        return number


def _upload(storage: Storage, path: Path) -> tuple[str, str]:
    """Store a model file and read it back, so that a version is never visible before its bytes are."""
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    key = f"models/{sha256}.onnx"
    if not storage.exists(key):
        storage.put_file(key, path, content_type="application/octet-stream")
    if storage.head(key).size_bytes != path.stat().st_size:
        raise Fault(f"The stored model {key} differs in size from the file that was sent.")
    return key, sha256


def _record_evaluation(
    session: Session, version_id: int, revision_id: int, evaluation: Sequence[ImageEvaluation]
) -> None:
    row = Evaluation(model_version_id=version_id, dataset_revision_id=revision_id, precision="fp32")
    session.add(row)
    session.flush()
    session.execute(
        insert(EvaluationImage),
        [
            {
                "evaluation_id": row.id,
                "image_id": entry.image_id,
                "tp": entry.counts.tp,
                "fp": entry.counts.fp,
                "fn": entry.counts.fn,
                "tn": entry.counts.tn,
            }
            for entry in evaluation
        ],
    )


def promote(*, database: Database, number: int, actor: str, reason: str, figures: dict[str, Any]) -> None:
    """Put a version into service and write the ledger line, in one transaction.

    Raises:
        ModelVersionNotFound: no such number.
    """
    with database.transaction() as session:
        _lock_champions(session)
        _promote(session, find_version(session, number), actor=actor, reason=reason, figures=figures)


def promote_first(*, database: Database, number: int, actor: str) -> bool:
    """Put a version into service if nothing is in service yet.

    Returns:
        Whether it was promoted.
    """
    with database.transaction() as session:
        _lock_champions(session)
        if session.get(Champion, DEFAULT_SCOPE) is not None:
            return False
        version = find_version(session, number)
        _promote(session, version, actor=actor, reason="first version", figures={})
        return True


def _lock_champions(session: Session) -> None:
    """Wait for other promotions to end, also for the one that writes the first champion: no row can be locked yet."""
    session.execute(text("SELECT pg_advisory_xact_lock(hashtext('champions'))"))


def _promote(session: Session, version: ModelVersion, *, actor: str, reason: str, figures: dict[str, Any]) -> None:
    champion = session.get(Champion, DEFAULT_SCOPE, with_for_update=True)
    session.add(
        Promotion(
            scope=DEFAULT_SCOPE,
            model_version_id=version.id,
            previous_version_id=champion.model_version_id if champion else None,
            actor=actor,
            reason=reason,
            figures=figures,
        )
    )
    statement = insert(Champion).values(scope=DEFAULT_SCOPE, model_version_id=version.id)
    session.execute(
        statement.on_conflict_do_update(
            index_elements=["scope"], set_={"model_version_id": version.id, "since": func.now()}
        )
    )


def find_version(session: Session, number: int) -> ModelVersion:
    """Return the version with a number.

    Raises:
        ModelVersionNotFound: there is none.
    """
    version = session.scalar(select(ModelVersion).where(ModelVersion.number == number))
    if version is None:
        raise ModelVersionNotFound(f"There is no model version {number}.", number=number)
    return version


def find_champion(session: Session) -> ModelVersion:
    """Return the version in service.

    Raises:
        ModelNotReady: none was promoted yet.
    """
    version = session.scalar(
        select(ModelVersion)
        .join(Champion, Champion.model_version_id == ModelVersion.id)
        .where(Champion.scope == DEFAULT_SCOPE)
    )
    if version is None:
        raise ModelNotReady
    return version
