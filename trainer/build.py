"""From labelled files to checked model files: network, training, export, operating point, evaluation, variants.

It knows no database and no queue: a training run and a training by hand are the same here, and differ in who is told.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import pytorch_lightning as lightning
import structlog
import torch
from torch import nn

from defectoscope.errors.training import CheckpointInvalid
from defectoscope.segmentation import ModelContract, PixelCounts, per_image_mean, pooled
from defectoscope.segmentation.placement import default_overlap_px
from trainer.arrays import load_samples
from trainer.checkpoint import Checkpoints
from trainer.config import TrainingConfig
from trainer.data import LabelledFiles
from trainer.evaluate import ScoredImage, evaluate
from trainer.export import export_onnx, stamp
from trainer.fit import FitOutcome, fit
from trainer.hardware import available_cores, choose_device
from trainer.network import build_network, create_network
from trainer.operating_point import Costs, choose_operating_point
from trainer.overlays import ValidationOverlay, draw_overlays
from trainer.runtime import onnx_engine
from trainer.served import torch_engine
from trainer.variants import Variant, build_variants

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
    """A model whose fp32 file passed its parity check, and what is known about it.

    Attributes:
        contract: of every file, without a version number.
        variants: fp32 first; those that differ too much from the network have a reason instead of a file.
        weights_path: the network as safetensors, to fine-tune from.
        operating_point: how threshold and minimum area of the contract were chosen; JSON-ready.
        scores: one for each validation image, by the fp32 file, at the image's own resolution.
        overlays: pictures of some validation images, for people.
        figures: everything that the observer was told of the whole build.
    """

    contract: ModelContract
    variants: list[Variant]
    weights_path: Path
    operating_point: dict[str, Any]
    scores: list[ScoredImage]
    overlays: list[ValidationOverlay]
    figures: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Where a training begins.

    Attributes:
        weights: the champion's, for a recipe that starts from it.
        checkpoint: of an earlier attempt at the same training, to go on from.
        checkpoints: keeps those of this one.
    """

    weights: Path | None = None
    checkpoint: Path | None = None
    checkpoints: Checkpoints | None = None


def build_model(
    files: LabelledFiles,
    *,
    config: TrainingConfig,
    dataset_revision: str | None,
    device: Literal["auto", "cpu", "cuda"],
    work_dir: Path,
    observer: Observer,
    start: Start = Start(),
) -> BuiltModel:
    """Train, export, choose the operating point, check and score.

    Args:
        files: both sides of the split.
        config: the recipe.
        dataset_revision: what the contract says the model was trained on.
        device: where to train; export, parity and scores are always on the CPU.
        work_dir: existing, for this build alone; the files are left there.
        observer: followed through every stage.
        start: where the training begins.

    Raises:
        InvalidDataset: the files cannot be trained on.
        InvalidRequest: the recipe cannot be built.
        EncoderWeightsInvalid: the local weights file does not fit.
        ProviderUnavailable: a GPU is demanded and there is none.
        TrainingFailed: the loss is not a number, or the network cannot be exported.
        ExportParityFailed: the fp32 file differs from the network.
    """
    began_at = time.monotonic()
    figures: dict[str, Any] = {}

    def tell(**found: Any) -> None:
        figures.update(found)
        observer.found(found)

    torch.set_num_threads(available_cores())
    network, weights_path = _train(
        files, config=config, device=device, work_dir=work_dir, observer=observer, start=start, tell=tell
    )

    observer.stage("export")
    contract = contract_of(config, dataset_revision=dataset_revision)
    path = work_dir / "model.onnx"
    export_onnx(network, contract=contract, path=path)

    observer.stage("operating point")
    point = choose_operating_point(
        files.val,
        engine=onnx_engine(path),
        contract=contract,
        costs=_costs(config),
        check=observer.check,
    )
    contract = replace(contract, threshold=point.threshold, min_area_px=point.min_area_px)
    stamp(path, contract)
    tell(operating_point=point.to_json())

    observer.stage("evaluation")
    exported = onnx_engine(path)
    scores = evaluate(files.val, engine=exported, contract=contract, check=observer.check)
    tell(validation=score_figures([score.counts for score in scores]))
    overlays = draw_overlays(scores, engine=exported, contract=contract, check=observer.check)

    variants = build_variants(
        path,
        network_engine=torch_engine(network),
        contract=contract,
        train_files=files.train,
        val_files=files.val,
        fp32_scores=scores,
        work_dir=work_dir,
        batch_size=config.batch_size,
        check=observer.check,
        stage=observer.stage,
    )
    tell(
        parity=variants[0].parity,
        variants={
            variant.precision: {**variant.parity, "published": variant.path is not None, "reason": variant.reason}
            for variant in variants
        },
        seconds=time.monotonic() - began_at,
    )
    return BuiltModel(
        contract=contract,
        variants=variants,
        weights_path=weights_path,
        operating_point=point.to_json(),
        scores=scores,
        overlays=overlays,
        figures=figures,
    )


def _train(
    files: LabelledFiles,
    *,
    config: TrainingConfig,
    device: Literal["auto", "cpu", "cuda"],
    work_dir: Path,
    observer: Observer,
    start: Start,
    tell: Callable[..., None],
) -> tuple[nn.Module, Path]:
    """Train, or go on training; return the network with its best weights, and the file of these."""
    chosen = choose_device(device)
    lightning.seed_everything(config.seed, workers=True, verbose=False)
    train, val = load_samples(
        files, contract=contract_of(config, dataset_revision=None), augmentation=config.augmentation, seed=config.seed
    )
    observer.stage("training")
    tell(device=str(chosen), train_images=len(files.train), val_images=len(files.val))

    def go_on(network: nn.Module, checkpoint: Path | None) -> FitOutcome:
        return fit(
            network,
            train=train,
            val=val,
            config=config,
            device=chosen,
            work_dir=work_dir,
            on_epoch=observer.epoch,
            check=observer.check,
            checkpoints=start.checkpoints,
            resume_from=checkpoint,
        )

    def begin() -> tuple[nn.Module, FitOutcome]:
        built = build_network(config, initial_weights=start.weights)
        # Told before the first epoch: where the network starts explains the figures that follow better than all else.
        tell(encoder_weights_used=built.encoder_weights_used, start_note=built.start_note)
        return built.network, go_on(built.network, None)

    if start.checkpoint is None:
        network, outcome = begin()
    else:
        try:
            # What the network started from was told by the trainer that began.
            network = create_network(config)
            outcome = go_on(network, start.checkpoint)
        except CheckpointInvalid as exc:
            log.warning("checkpoint.not_used", reason=exc.message, consequence="the training begins afresh")
            network, outcome = begin()
    log.info("training.finished", epochs=outcome.epochs_run, best_epoch=outcome.best_epoch, **outcome.best)
    tell(
        autocast=outcome.autocast,
        devices=outcome.devices,
        class_weights=outcome.class_weights,
        epochs_run=outcome.epochs_run,
        best_epoch=outcome.best_epoch,
        resumed_after=outcome.resumed_after,
        stopped_by_budget=outcome.stopped_by_budget,
        stopped_early=outcome.stopped_early,
        training_seconds=outcome.epochs_s,
    )
    return network, outcome.weights_path


def _costs(config: TrainingConfig) -> Costs | None:
    if config.escape_cost is None or config.false_call_cost is None:
        return None
    return Costs(escape=config.escape_cost, false_call=config.false_call_cost)


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
    is_tiled = config.resize_policy == "tile"
    overlap_px = default_overlap_px(config.input_size_wh) if config.tile_overlap is None else config.tile_overlap
    return ModelContract(
        input_size_wh=config.input_size_wh,
        resize_policy=config.resize_policy,
        tile_overlap_px=overlap_px if is_tiled else None,
        model_scale=config.model_scale if is_tiled else None,
        threshold=config.threshold,
        min_area_px=config.min_area_px,
        class_names=("background", "defect"),
        architecture=config.architecture,
        encoder=config.encoder,
        dataset_revision=dataset_revision,
        version=None,
    )
