"""An import from its claimed row to a published version: fetched, wrapped in a process of its own, proven, scored."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import structlog

from defectoscope.database import Database, Split
from defectoscope.dataset import find_revision, labelled_images
from defectoscope.errors import DefectoscopeError, NotNow
from defectoscope.errors.models import ImportAbandoned
from defectoscope.errors.storage import StorageFault
from defectoscope.errors.training import TrainingInterrupted
from defectoscope.registry import (
    ClaimedImport,
    ImageEvaluation,
    VariantFile,
    complete_import,
    fail_import,
    publish,
    release_import,
    renew_import,
)
from defectoscope.segmentation import ModelContract
from defectoscope.storage import Storage, hash_file
from trainer.cache import FileCache
from trainer.data import open_revision
from trainer.evaluate import evaluate
from trainer.export import stamp
from trainer.foreign import FileLimits, ForeignFacts, WrapReport, wrap_in_process
from trainer.interruption import Interruption
from trainer.runtime import onnx_engine, read_contract

log = structlog.get_logger(__name__)

#: What a file of unknown make is called.
_UNKNOWN = "unknown"


def execute_import(
    claimed: ClaimedImport,
    *,
    database: Database,
    storage: Storage,
    cache: FileCache,
    work_dir: Path,
    lease_s: int,
    interruption: Interruption,
) -> int | None:
    """Do an import and end it, always.

    Args:
        claimed: the import.
        database: where it is recorded.
        storage: where the file is and the version goes.
        cache: images of the dataset that it is scored on.
        work_dir: scratch.
        lease_s: how long silence is taken for work.
        interruption: asked whether to stop.

    Returns:
        The number of the published version; None when the import failed or was given back.
    """
    renewed_at = time.monotonic()

    def check() -> None:
        nonlocal renewed_at
        interruption.check()
        if time.monotonic() - renewed_at > lease_s / 4:
            if not renew_import(database=database, claimed=claimed, lease_s=lease_s):
                raise ImportAbandoned
            renewed_at = time.monotonic()

    try:
        number = _import(claimed, database=database, storage=storage, cache=cache, work_dir=work_dir, check=check)
    except (NotNow, TrainingInterrupted) as exc:
        release_import(database=database, claimed=claimed)
        log.warning("model_import.given_back", import_id=claimed.import_id, code=exc.code, reason=exc.message)
        return None
    except DefectoscopeError as exc:
        fail_import(database=database, claimed=claimed, error=exc)
        log.error("model_import.failed", import_id=claimed.import_id, code=exc.code, reason=exc.message)  # noqa: TRY400
        return None
    complete_import(database=database, claimed=claimed)
    log.info("model_import.succeeded", import_id=claimed.import_id, number=number)
    return number


def _import(
    claimed: ClaimedImport,
    *,
    database: Database,
    storage: Storage,
    cache: FileCache,
    work_dir: Path,
    check: Callable[[], None],
) -> int:
    work_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=work_dir, prefix="import-") as scratch:
        given = Path(scratch) / "given.onnx"
        storage.get_to_file(claimed.key, given, max_bytes=FileLimits().max_bytes)
        if hash_file(given) != claimed.sha256:
            raise StorageFault(f"The stored file of {claimed.file_name} does not have its recorded hash.")
        report = wrap_in_process(given, out=Path(scratch) / "wrapped.onnx", facts=_facts(claimed))
        check()
        scores, revision_id = _score(claimed, report, database=database, cache=cache, check=check)

        def write_variants(numbered: ModelContract) -> Sequence[VariantFile]:
            stamp(report.path, numbered)
            read_contract(report.path)
            parity = {**report.proof.to_json(), "tail": report.tail, "source_sha256": report.source_sha256}
            return [VariantFile(precision="fp32", path=report.path, parity=parity)]

        return publish(
            database=database,
            storage=storage,
            contract=report.contract,
            build=write_variants,
            training_run_id=None,
            dataset_revision_id=revision_id,
            evaluation=scores,
            import_id=claimed.import_id,
        )


def _facts(claimed: ClaimedImport) -> ForeignFacts:
    options = {name: value for name, value in claimed.options.items() if value is not None}
    size = options.get("input_size_wh")
    facts = ForeignFacts(
        architecture=options.get("architecture", _UNKNOWN),
        encoder=options.get("encoder", _UNKNOWN),
        size_wh=None if size is None else (size[0], size[1]),
    )
    chosen = {name: options[name] for name in ("threshold", "min_area_px") if name in options}
    return replace(facts, **chosen)


def _score(
    claimed: ClaimedImport,
    report: WrapReport,
    *,
    database: Database,
    cache: FileCache,
    check: Callable[[], None],
) -> tuple[list[ImageEvaluation], int | None]:
    """Score the wrapped file on the validation side of the dataset that was named, if one was."""
    reference = claimed.options.get("dataset")
    if reference is None:
        return [], None
    with database.transaction() as session:
        revision = find_revision(session, reference)
        images = [image for image in labelled_images(session, revision.id) if image.split is Split.VAL]
    files = open_revision(images, cache=cache).val
    scored = evaluate(files, engine=onnx_engine(report.path), contract=report.contract, check=check)
    entries = [
        ImageEvaluation(image_id=score.file.image_id, counts=score.counts)
        for score in scored
        if score.file.image_id is not None
    ]
    return entries, revision.id
