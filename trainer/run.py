"""A training run from its claimed row to a published version that was held against the champion."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import structlog
from sqlalchemy import select

from defectoscope.database import DatasetRevision, ModelVersion
from defectoscope.dataset import labelled_images
from defectoscope.errors.models import ModelVersionNotFound, ModelWeightsDropped
from defectoscope.registry import (
    ImageEvaluation,
    VariantFile,
    champion_or_none,
    fetch_weights,
    publish,
)
from defectoscope.segmentation import ModelContract
from defectoscope.training import ClaimedRun, record_config, record_report
from defectoscope.training.queries import view_run
from trainer.build import BuiltModel, Observer, Start, build_model
from trainer.challenge import challenge
from trainer.config import TrainingConfig
from trainer.data import LabelledFiles, open_revision
from trainer.failures import named_failures
from trainer.lease import RunLease
from trainer.report import write_report
from trainer.stored_checkpoints import StoredCheckpoints
from trainer.variants import restamp
from trainer.workplace import Workplace

log = structlog.get_logger(__name__)

_SCRATCH = "run-"


class Build(Protocol):
    """Turns labelled files into checked model files; `trainer.build.build_model` is the one in use."""

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
        start: Start,
    ) -> BuiltModel:
        """Build, or raise."""


def execute_run(run: ClaimedRun, *, lease: RunLease, place: Workplace, build: Build = build_model) -> int:
    """Do everything a run still owes; what an earlier trainer of it has done is not done again.

    Args:
        run: claimed.
        lease: held, for as long as this takes.
        place: what to work with.
        build: makes the model.

    Returns:
        The number of the published version.

    Raises:
        DefectoscopeError: the run failed or was given back; no half-made version is visible, the champion stays.
    """
    with named_failures():
        lease.stage("data")
        _sweep(place)
        checkpoints = StoredCheckpoints(run, database=place.database, storage=place.storage)
        with place.database.transaction() as session:
            revision = session.get_one(DatasetRevision, run.dataset_revision_id)
            images = labelled_images(session, revision.id)
            number = session.scalar(select(ModelVersion.number).where(ModelVersion.training_run_id == run.run_id))
        files = open_revision(images, cache=place.cache)
        with tempfile.TemporaryDirectory(dir=place.work_dir, prefix=f"{_SCRATCH}{run.run_id}-") as scratch:
            report = _Report(run=run, dataset=f"{revision.name}@{revision.number}", place=place, scratch=Path(scratch))
            if number is None:
                number = _build_and_publish(
                    run, files, lease=lease, place=place, checkpoints=checkpoints, report=report, build=build
                )
            lease.stage("gate")
            decision = challenge(
                number,
                files=files.val,
                revision_id=revision.id,
                database=place.database,
                storage=place.storage,
                model_dir=place.work_dir / "models",
                rules=place.rules,
                actor=f"training run {run.run_id}",
                check=lease.check,
            )
            if decision is not None:
                lease.found({"gate": decision})
                report.store(gate=decision)
        checkpoints.forget()
    return number


def _build_and_publish(
    run: ClaimedRun,
    files: LabelledFiles,
    *,
    lease: RunLease,
    place: Workplace,
    checkpoints: StoredCheckpoints,
    report: _Report,
    build: Build,
) -> int:
    config, weights = _resolve(run, place=place)
    record_config(database=place.database, run=run, config=config.to_json())
    model = build(
        files,
        config=config,
        dataset_revision=report.dataset,
        device=place.device,
        work_dir=report.scratch,
        observer=lease,
        start=Start(weights=weights, checkpoint=checkpoints.fetch(report.scratch), checkpoints=checkpoints),
    )
    lease.stage("report")
    report.model, report.config = model, config
    report.store()
    # From here on a stop is not heard: the version is published, or nothing of it is.
    lease.stage("publishing")
    number = _publish(model, run=run, place=place)
    log.info("model_version.published", number=number, run_id=run.run_id)
    return number


@dataclass(slots=True, kw_only=True)
class _Report:
    """The page about a run; stored when the model is made, and again when the gate has answered."""

    run: ClaimedRun
    dataset: str
    place: Workplace
    scratch: Path
    #: None for a trainer that found the version published: then the page is stored already, without the gate's answer.
    model: BuiltModel | None = None
    config: TrainingConfig | None = None

    def store(self, **figures: Any) -> None:
        """Write the page, with further figures, and say where it is."""
        if self.model is None or self.config is None:
            return
        with self.place.database.transaction() as session:
            # From the rows: they also have the epochs of trainers before this one.
            epochs = view_run(session, self.run.run_id).metrics
        path = self.scratch / "report.html"
        write_report(
            path,
            title=f"Training run {self.run.run_id}",
            facts={"dataset": self.dataset},
            recipe=self.config.to_json(),
            epochs=[{"epoch": epoch, **values} for epoch, values in epochs.items()],
            figures={**self.model.figures, **figures},
            overlays=self.model.overlays,
        )
        key = f"training/{self.run.run_id}/report-{self.run.token}.html"
        self.place.storage.put_file(key, path, content_type="text/html; charset=utf-8")
        record_report(database=self.place.database, run=self.run, key=key)


def _resolve(run: ClaimedRun, *, place: Workplace) -> tuple[TrainingConfig, Path | None]:
    """Fill the recipe up; one that starts from the champion takes over its network, and gets its weights."""
    config = TrainingConfig.resolve(run.config)
    if config.start != "champion":
        return config, None
    with place.database.transaction() as session:
        champion = champion_or_none(session)
    if champion is None:
        return config, None
    try:
        weights = fetch_weights(
            database=place.database,
            storage=place.storage,
            number=champion.number,
            directory=place.work_dir / "models",
        )
    except (ModelVersionNotFound, ModelWeightsDropped) as exc:
        log.warning("champion_weights.missing", reason=exc.message, consequence="the network starts from scratch")
        return config, None
    contract = ModelContract.from_metadata(champion.contract)
    network = {
        "architecture": contract.architecture,
        "encoder": contract.encoder,
        "input_size_wh": contract.input_size_wh,
    }
    return TrainingConfig.resolve({**config.to_json(), **network}), weights


def _publish(model: BuiltModel, *, run: ClaimedRun, place: Workplace) -> int:
    def write_variants(numbered: ModelContract) -> Sequence[VariantFile]:
        stamped = [restamp(variant, numbered) for variant in model.variants]
        return [
            VariantFile(precision=variant.precision, path=variant.path, parity=variant.parity, reason=variant.reason)
            for variant in stamped
        ]

    return publish(
        database=place.database,
        storage=place.storage,
        contract=model.contract,
        build=write_variants,
        training_run_id=run.run_id,
        dataset_revision_id=run.dataset_revision_id,
        evaluation=[
            ImageEvaluation(image_id=score.file.image_id, counts=score.counts)
            for score in model.scores
            if score.file.image_id is not None
        ],
        weights_path=model.weights_path,
        operating_point=model.operating_point,
    )


def _sweep(place: Workplace) -> None:
    """Remove the scratch of runs that are not worked on: a killed trainer could not do it itself."""
    place.work_dir.mkdir(parents=True, exist_ok=True)
    for scratch in place.work_dir.glob(f"{_SCRATCH}*"):
        # One training at a time: what lies here is of nobody who lives.
        shutil.rmtree(scratch, ignore_errors=True)
