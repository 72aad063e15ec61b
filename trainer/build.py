"""From labelled files to a checked model file: samples, network, training, export, parity, evaluation, in this order.

It knows no database and no queue: a training run and a training by hand are the same here, and differ in who is told.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import pytorch_lightning as lightning
import structlog
import torch

from defectoscope.segmentation import ModelContract, PixelCounts, per_image_mean, pooled
from trainer.arrays import load_samples
from trainer.config import TrainingConfig
from trainer.data import LabelledFiles
from trainer.evaluate import ScoredImage, evaluate
from trainer.export import export_onnx
from trainer.fit import fit
from trainer.hardware import available_cores, choose_device
from trainer.network import build_network
from trainer.parity import Parity, compare, demand
from trainer.runtime import onnx_engine
from trainer.served import torch_engine

log = structlog.get_logger(__name__)

_SCORES: dict[str, Callable[[PixelCounts], float]] = {
    "iou_defect": lambda counts: counts.iou_defect,
    "iou_background": lambda counts: counts.iou_background,
    "iou": lambda counts: counts.iou_mean,
    "dice": lambda counts: counts.dice,
}


class Observer(Protocol):
    """Whoever follows a build, and may end it."""

    def stage(self, name: str) -> None:
        """Hear that a stage begins. May raise to end the build."""

    def epoch(self, epoch: int, figures: dict[str, float]) -> None:
        """Hear the figures of an epoch, counted from 1."""

    def found(self, figures: dict[str, Any]) -> None:
        """Hear JSON-ready facts about the whole build, by name."""

    def check(self) -> None:
        """Be asked, often, whether to go on. Raises to end the build."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltModel:
    """A model file that passed its parity check, and what is known about it.

    Attributes:
        path: the ONNX file, its contract inside, without a version number.
        contract: that contract.
        parity: how far the file is from the network.
        scores: one for each validation image, by this very file, at the image's own resolution.
        figures: everything that the observer was told of the whole build.
    """

    path: Path
    contract: ModelContract
    parity: Parity
    scores: list[ScoredImage]
    figures: dict[str, Any]


def build_model(
    files: LabelledFiles,
    *,
    config: TrainingConfig,
    dataset_revision: str | None,
    device: Literal["auto", "cpu", "cuda"],
    work_dir: Path,
    observer: Observer,
) -> BuiltModel:
    """Train, export, check and score.

    Args:
        files: both sides of the split.
        config: the recipe.
        dataset_revision: what the contract says the model was trained on.
        device: where to train; export, parity and scores are always on the CPU.
        work_dir: existing, for this build alone; the model file is left there.
        observer: followed through every stage.

    Raises:
        InvalidDataset: the files cannot be trained on.
        InvalidRequest: the recipe cannot be built.
        EncoderWeightsInvalid: the local weights file does not fit.
        ProviderUnavailable: a GPU is demanded and there is none.
        TrainingFailed: the loss is not a number, or the network cannot be exported.
        ExportParityFailed: the file differs from the network.
    """
    began_at = time.monotonic()
    figures: dict[str, Any] = {}

    def tell(**found: Any) -> None:
        figures.update(found)
        observer.found(found)

    torch.set_num_threads(available_cores())
    chosen = choose_device(device)
    lightning.seed_everything(config.seed, workers=True, verbose=False)
    contract = contract_of(config, dataset_revision=dataset_revision)
    train, val = load_samples(files, contract=contract, augmentation=config.augmentation)
    observer.stage("training")
    built = build_network(config)
    # Told before the first epoch: where the encoder starts explains the figures that follow better than anything else.
    tell(
        encoder_weights_used=built.encoder_weights_used,
        device=str(chosen),
        train_images=len(train),
        val_images=len(val),
    )
    fit_began_at = time.monotonic()
    outcome = fit(
        built.network,
        train=train,
        val=val,
        config=config,
        device=chosen,
        work_dir=work_dir,
        on_epoch=observer.epoch,
        check=observer.check,
    )
    log.info("training.finished", epochs=outcome.epochs_run, best_epoch=outcome.best_epoch, **outcome.best)
    tell(
        autocast=outcome.autocast,
        epochs_run=outcome.epochs_run,
        best_epoch=outcome.best_epoch,
        stopped_by_budget=outcome.stopped_by_budget,
        training_seconds=time.monotonic() - fit_began_at,
    )

    observer.stage("export")
    path = work_dir / "model.onnx"
    export_onnx(built.network, contract=contract, path=path)
    exported = onnx_engine(path)

    observer.stage("parity")
    parity = compare(
        files.val,
        reference=torch_engine(built.network),
        exported=exported,
        contract=contract,
        batch_size=config.batch_size,
        check=observer.check,
    )
    # Told before they are judged: the figures of a refused file are the ones that matter.
    tell(parity=parity.to_json())
    demand(parity)

    observer.stage("evaluation")
    scores = evaluate(files.val, engine=exported, contract=contract, check=observer.check)
    tell(
        validation=score_figures([score.counts for score in scores]),
        seconds=time.monotonic() - began_at,
    )
    return BuiltModel(path=path, contract=contract, parity=parity, scores=scores, figures=figures)


def score_figures(counts: list[PixelCounts]) -> dict[str, Any]:
    """Derive the scores people ask for from pixel counts, at least one image's, under the names the API gives them."""
    whole = pooled(counts)
    return {
        "images": len(counts),
        "pooled": {name: score(whole) for name, score in _SCORES.items()},
        "mean": {name: per_image_mean(counts, score) for name, score in _SCORES.items()},
    }


def contract_of(config: TrainingConfig, *, dataset_revision: str | None) -> ModelContract:
    """Return the contract of the model that a recipe gives; its number comes with the registry."""
    return ModelContract(
        input_size_wh=config.input_size_wh,
        resize_policy="stretch",
        threshold=config.threshold,
        min_area_px=config.min_area_px,
        class_names=("background", "defect"),
        architecture=config.architecture,
        encoder=config.encoder,
        dataset_revision=dataset_revision,
        version=None,
    )
