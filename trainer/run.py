"""A training run from its claimed row to a published version, and the first version into service."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Protocol

import structlog

from defectoscope.database import Database, DatasetRevision, TrainingRun
from defectoscope.dataset import labelled_images
from defectoscope.registry import ImageEvaluation, VariantFile, promote_first, publish
from defectoscope.segmentation import ModelContract
from defectoscope.storage import Storage
from defectoscope.training import ClaimedRun, record_config
from trainer.build import BuiltModel, Observer, build_model
from trainer.config import TrainingConfig
from trainer.data import LabelledFiles, fetch_revision
from trainer.export import stamp
from trainer.failures import named_failures
from trainer.lease import RunLease
from trainer.runtime import read_contract

log = structlog.get_logger(__name__)

_SCRATCH = "run-"


class Build(Protocol):
    """Turns labelled files into a checked model file; `trainer.build.build_model` is the one in use."""

    def __call__(
        self,
        files: LabelledFiles,
        /,
        *,
        config: TrainingConfig,
        dataset_revision: str | None,
        device: Literal["auto", "cpu", "cuda"],
        work_dir: Path,
        observer: Observer,
    ) -> BuiltModel:
        """Build, or raise."""


def execute_run(
    run: ClaimedRun,
    *,
    lease: RunLease,
    database: Database,
    storage: Storage,
    work_dir: Path,
    device: Literal["auto", "cpu", "cuda"],
    build: Build = build_model,
) -> int:
    """Do everything a run owes.

    Args:
        run: claimed.
        lease: held, for as long as this takes.
        database: where revision, version and evaluation are.
        storage: where images are and models go.
        work_dir: scratch; the cache of images in it stays for the next run.
        device: where to train.
        build: makes the model.

    Returns:
        The number of the published version.

    Raises:
        DefectoscopeError: the run failed; nothing was published.
    """
    with named_failures():
        lease.stage("data")
        _sweep(work_dir, database=database)
        config = TrainingConfig.resolve(run.config)
        record_config(database=database, run=run, config=config.to_json())
        with database.transaction() as session:
            revision = session.get_one(DatasetRevision, run.dataset_revision_id)
            images = labelled_images(session, revision.id)
        files = fetch_revision(images, storage=storage, cache_dir=work_dir / "images")
        with tempfile.TemporaryDirectory(dir=work_dir, prefix=f"{_SCRATCH}{run.run_id}-") as scratch:
            model = build(
                files,
                config=config,
                dataset_revision=f"{revision.name}@{revision.number}",
                device=device,
                work_dir=Path(scratch),
                observer=lease,
            )
            # From here on a stop is not heard: the version is published and the run succeeds, or neither.
            lease.stage("publishing")
            number = _publish(model, run=run, database=database, storage=storage)
    promoted = promote_first(database=database, number=number, actor=f"training run {run.run_id}")
    log.info("model_version.published", number=number, run_id=run.run_id, promoted=promoted)
    return number


def _publish(model: BuiltModel, *, run: ClaimedRun, database: Database, storage: Storage) -> int:
    def write_variants(numbered: ModelContract) -> Sequence[VariantFile]:
        path = model.path.with_name(f"v{numbered.version}.onnx")
        shutil.copyfile(model.path, path)
        stamp(path, numbered)
        read_contract(path)
        return [VariantFile(precision="fp32", path=path, parity=model.parity.to_json())]

    return publish(
        database=database,
        storage=storage,
        contract=model.contract,
        build=write_variants,
        training_run_id=run.run_id,
        dataset_revision_id=run.dataset_revision_id,
        evaluation=[
            ImageEvaluation(image_id=score.file.image_id, counts=score.counts)
            for score in model.scores
            if score.file.image_id is not None
        ],
    )


def _sweep(work_dir: Path, *, database: Database) -> None:
    """Remove the scratch of runs that have ended: a killed trainer could not do it itself."""
    work_dir.mkdir(parents=True, exist_ok=True)
    for scratch in work_dir.glob(f"{_SCRATCH}*"):
        run_id = scratch.name.removeprefix(_SCRATCH).partition("-")[0]
        if not run_id.isdecimal():
            continue
        with database.transaction() as session:
            found = session.get(TrainingRun, int(run_id))
            is_over = found is None or found.state.is_final
        if is_over:
            shutil.rmtree(scratch, ignore_errors=True)
