"""From labelled files to a checked model file: samples, network, training, export, parity, evaluation, in this order.

It knows no database and no queue: a training run and a training by hand are the same here, and differ in who is told.
"""

from __future__ import annotations

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
from trainer.fit import FitOutcome, fit
from trainer.hardware import available_cores, choose_device
from trainer.network import build_network
from trainer.parity import Parity, compare, demand
from trainer.runtime import onnx_engine
from trainer.served import torch_engine

log = structlog.get_logger(__name__)


class Observer(Protocol):
    """Whoever follows a build, and may end it."""

    def stage(self, name: str) -> None:
        """Hear that a stage begins. May raise to end the build."""

    def epoch(self, epoch: int, figures: dict[str, float]) -> None:
        """Hear the figures of an epoch, counted from 1."""

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
        figures: JSON-ready facts about the training, the parity and the scores.
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
    torch.set_num_threads(available_cores())
    chosen = choose_device(device)
    lightning.seed_everything(config.seed, workers=True, verbose=False)
    contract = contract_of(config, dataset_revision=dataset_revision)
    train, val = load_samples(files, contract=contract, augmentation=config.augmentation)
    observer.stage("training")
    built = build_network(config)
    # Beside the figures of each epoch, because it explains them better than anything else does.
    start = {"pretrained_encoder": float(built.encoder_weights_used != "random")}
    outcome = fit(
        built.network,
        train=train,
        val=val,
        config=config,
        device=chosen,
        work_dir=work_dir,
        on_epoch=lambda epoch, values: observer.epoch(epoch, {**values, **start}),
        check=observer.check,
    )
    log.info("training.finished", epochs=outcome.epochs_run, best_epoch=outcome.best_epoch, **outcome.best)

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
    demand(parity)

    observer.stage("evaluation")
    scores = evaluate(files.val, engine=exported, contract=contract, check=observer.check)
    figures = {
        "encoder_weights_used": built.encoder_weights_used,
        "device": str(chosen),
        "train_images": len(train),
        "val_images": len(val),
        **_training_figures(outcome),
        "parity": parity.to_json(),
        "validation": score_figures([score.counts for score in scores]),
    }
    return BuiltModel(path=path, contract=contract, parity=parity, scores=scores, figures=figures)


def score_figures(counts: list[PixelCounts]) -> dict[str, float | None]:
    """Derive the scores people ask for from pixel counts, at least one image's."""
    whole = pooled(counts)
    return {
        "iou_defect_pooled": whole.iou_defect,
        "iou_mean_pooled": whole.iou_mean,
        "dice_pooled": whole.dice,
        "iou_defect_per_image": per_image_mean(counts, lambda count: count.iou_defect),
        "iou_mean_per_image": per_image_mean(counts, lambda count: count.iou_mean),
    }


def _training_figures(outcome: FitOutcome) -> dict[str, Any]:
    return {
        "precision": outcome.precision,
        "epochs_run": outcome.epochs_run,
        "best_epoch": outcome.best_epoch,
        "stopped_by_budget": outcome.stopped_by_budget,
        "best": outcome.best,
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
