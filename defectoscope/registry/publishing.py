"""Publishing: a model version becomes visible only when its files are stored, read back and recorded, all at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from defectoscope.crash_points import CrashPoint, crash_point
from defectoscope.database import Database, LedgerAction, ModelImport, ModelOrigin, ModelVariant, ModelVersion
from defectoscope.errors import Fault
from defectoscope.errors.installation import DatabaseUnavailable
from defectoscope.objects import confirm_stored
from defectoscope.registry.evaluations import ImageEvaluation, record_evaluation
from defectoscope.registry.ledger import append_line, lock_ledger
from defectoscope.registry.stored_files import ONNX, WEIGHTS, store_file
from defectoscope.registry.versions import SERVED_PRECISION
from defectoscope.segmentation import ModelContract
from defectoscope.storage import Storage

#: A publisher may need minutes to build and store its files; the next one waits rather than to fail.
_WAIT_S = 1800
_LOOK_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantFile:
    """A model file that passed its parity check; or, without a path, why there is none of this precision.

    Attributes:
        precision: fp32, fp16 or int8.
        path: of the file; None when it is not published.
        parity: JSON-ready figures of the check, also of a file that did not pass it.
        reason: one sentence, exactly where there is no path.
    """

    precision: str
    path: Path | None
    parity: dict[str, Any]
    reason: str | None = None

    def __post_init__(self) -> None:
        if (self.path is None) == (self.reason is None):
            raise Fault(f"The {self.precision} variant must have either a file or a reason why there is none.")


def publish(
    *,
    database: Database,
    storage: Storage,
    contract: ModelContract,
    build: Callable[[ModelContract], Sequence[VariantFile]],
    training_run_id: int | None,
    dataset_revision_id: int | None,
    evaluation: Sequence[ImageEvaluation] = (),
    weights_path: Path | None = None,
    operating_point: dict[str, Any] | None = None,
    import_id: int | None = None,
) -> int:
    """Number a version, have its files written with that number inside, store them, then make it visible.

    One transaction from the number to the row: whoever dies in between leaves no gap and no half-made version.

    Args:
        database: where the version is recorded.
        storage: where its files go, under their content hashes.
        contract: what the files' own metadata will say; ``version`` is filled in here.
        build: writes the files for a numbered contract, at most one for each precision, parity already checked.
        training_run_id: the run it came from; publishing the same run twice returns the first version.
        dataset_revision_id: what it was trained on; of an imported model, what it was scored on.
        evaluation: pixel counts of the served fp32 file on the validation images of that revision.
        weights_path: the network as safetensors, to fine-tune from.
        operating_point: JSON-ready: how threshold and minimum area were chosen, with error rates and intervals.
        import_id: the import it came from; publishing the same import twice returns the first version. The ledger says
            who asked for it.

    Returns:
        The version's number.

    Raises:
        Fault: what is stored is not what was sent.
        DatabaseUnavailable: another publisher took longer than half an hour.
        ObjectsBeingDeleted: a file of the same content was just collected; publish again.
    """
    with database.transaction() as session:
        number = _reserve_number(session)
        known = _published_before(session, training_run_id=training_run_id, import_id=import_id)
        if known is not None:
            return known
        numbered = replace(contract, version=number)
        version = ModelVersion(
            number=number,
            origin=ModelOrigin.TRAINING if import_id is None else ModelOrigin.IMPORT,
            contract=numbered.to_metadata(),
            training_run_id=training_run_id,
            # What an imported model was trained on is not known.
            dataset_revision_id=dataset_revision_id if import_id is None else None,
            operating_point=operating_point,
        )
        session.add(version)
        session.flush()
        for variant in build(numbered):
            session.add(_record_variant(session, storage, version, variant))
        if weights_path is not None:
            weights = store_file(session, storage, weights_path, extension=WEIGHTS)
            version.weights_key, version.weights_sha256 = weights.key, weights.sha256
        if evaluation and dataset_revision_id is not None:
            record_evaluation(
                session,
                number=number,
                revision_id=dataset_revision_id,
                precision=SERVED_PRECISION,
                entries=evaluation,
            )
        if import_id is not None:
            _settle_import(session, version, import_id)
        session.flush()
        variants = session.scalars(select(ModelVariant.key).where(ModelVariant.model_version_id == version.id))
        confirm_stored(session, storage, filter(None, [*variants, version.weights_key]))
        crash_point(CrashPoint.VERSION_STORED)
    crash_point(CrashPoint.VERSION_PUBLISHED)
    return number


def _reserve_number(session: Session) -> int:
    """Return the next version number; concurrent callers wait, so that numbers have no gaps.

    The advisory lock is held until the transaction ends: reserve in the transaction that publishes.
    """
    deadline = monotonic() + _WAIT_S
    # Asked again and again: one statement that waits so long could not be told from a server that is gone.
    while not session.scalar(text("SELECT pg_try_advisory_xact_lock(hashtext('model_versions.number'))")):
        if monotonic() > deadline:
            raise DatabaseUnavailable("Another model version is being published, and has been for too long.")
        sleep(_LOOK_S)
    # The files are made and stored before the transaction ends.
    session.execute(text(f"SET LOCAL idle_in_transaction_session_timeout = '{_WAIT_S}s'"))
    return (session.scalar(select(func.max(ModelVersion.number))) or 0) + 1


def _published_before(session: Session, *, training_run_id: int | None, import_id: int | None) -> int | None:
    numbers = select(ModelVersion.number)
    if training_run_id is not None:
        return session.scalar(numbers.where(ModelVersion.training_run_id == training_run_id))
    if import_id is not None:
        return session.scalar(
            numbers.join(ModelImport, ModelImport.model_version_id == ModelVersion.id).where(
                ModelImport.id == import_id
            )
        )
    return None


def _record_variant(session: Session, storage: Storage, version: ModelVersion, variant: VariantFile) -> ModelVariant:
    stored = None if variant.path is None else store_file(session, storage, variant.path, extension=ONNX)
    return ModelVariant(
        model_version_id=version.id,
        precision=variant.precision,
        key=stored.key if stored else None,
        sha256=stored.sha256 if stored else None,
        size_bytes=stored.size_bytes if stored else None,
        parity=variant.parity,
        reason=variant.reason,
    )


def _settle_import(session: Session, version: ModelVersion, import_id: int) -> None:
    """Bind the import to its version and write the ledger's line.

    Here and not when the import completes: a trainer that is killed in between must not import the file twice.
    """
    row = session.get_one(ModelImport, import_id, with_for_update=True)
    row.model_version_id = version.id
    lock_ledger(session)
    append_line(
        session,
        action=LedgerAction.IMPORTED,
        version=version,
        actor=row.actor,
        reason=f"imported from {row.file_name}",
        figures={"import_id": row.id, "file_name": row.file_name, "sha256": row.sha256},
        message=f"Model version {version.number} was imported from {row.file_name}.",
    )
