"""Trains a network on pytorch-lightning, epoch by epoch, and keeps the best one by validation IoU.

Validation during training is scored at the network's input size (in tiles where the recipe cuts images into them, each
by itself), without the minimum area: it compares epochs, and the labels are in memory at that size. The figures a
version is judged by come from `trainer.evaluate`, at each image's own resolution. Weights and checkpoints are
safetensors: reading them back can run no code.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog
import torch
from safetensors.torch import load_file
from torch import nn

from trainer.arrays import SampleSet
from trainer.checkpoint import Checkpoint, Checkpoints, Progress, fingerprint_of, read_checkpoint, restore_network
from trainer.config import TrainingConfig
from trainer.distributed import run_epochs_among_processes
from trainer.epochs import run_epochs
from trainer.hardware import Arithmetic, choose_arithmetic, count_devices
from trainer.losses import balanced_weights
from trainer.plan import BEST_NAME, Plan
from trainer.weights import save_weights

log = structlog.get_logger(__name__)

#: Told the epoch, from 1, and its figures.
OnEpoch = Callable[[int, dict[str, float]], None]
#: Raises when the training has to stop now.
Check = Callable[[], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class FitOutcome:
    """How a training went.

    Attributes:
        epochs_run: epochs trained, those before a resumption included.
        resumed_after: epochs that were in the checkpoint; 0 without one.
        best_epoch: the one whose weights the network now has, from 1.
        best: its figures.
        stopped_by_budget: whether the time budget left out epochs of the recipe.
        stopped_early: whether training ended because no epoch was better for as many as the recipe allows.
        autocast: arithmetic of the training: "bf16", "fp16", or "off" for fp32.
        class_weights: of background and defect in the loss; None where they weigh alike.
        devices: how many shared each batch.
        epochs_s: time of all epochs, those before a resumption included.
        weights_path: the best weights, a file of `trainer.weights.save_weights`.
    """

    epochs_run: int
    resumed_after: int
    best_epoch: int
    best: dict[str, float]
    stopped_by_budget: bool
    stopped_early: bool
    autocast: Arithmetic
    class_weights: tuple[float, float] | None
    devices: int
    epochs_s: float
    weights_path: Path


def fit(
    network: nn.Module,
    *,
    train: SampleSet,
    val: SampleSet,
    config: TrainingConfig,
    device: torch.device,
    work_dir: Path,
    on_epoch: OnEpoch,
    check: Check,
    checkpoints: Checkpoints | None = None,
    resume_from: Path | None = None,
) -> FitOutcome:
    """Train a network and leave it with the weights of its best epoch, in eval mode on the CPU.

    A resumed training goes on as the interrupted one would have: on a CPU to the same bits. An epoch is reported before
    its checkpoint is kept, so that a training killed in between reports it twice, and never not at all.

    Args:
        network: the recipe's, as `trainer.network` builds it: (N, 3, h, w) normalised float32 to (N, 2, h, w) logits.
            Where a training is resumed its weights do not matter.
        train: at least two images.
        val: at least one image.
        config: the recipe.
        device: where to compute; several GPUs where the recipe says so.
        work_dir: where the best weights and the checkpoint are kept meanwhile.
        on_epoch: told the figures of each epoch.
        check: asked after each step whether to stop; it raises what it means.
        checkpoints: given the file of each epoch; None to write none.
        resume_from: such a file, to go on from. One that has all epochs gives the best weights at once.

    Raises:
        CheckpointInvalid: that file is damaged or of another training; nothing was trained, and the caller may start
            afresh with a newly built network.
        InvalidRequest: the recipe's arithmetic does not go with the device.
        ProviderUnavailable: the recipe demands more GPUs than there are.
        TrainingFailed: the loss is not a number any more, or a process of several was lost.
        TrainingInterrupted: the process was told to stop.
        OSError, SafetensorError: a file could not be written; `trainer.failures` gives them a name.
    """
    plan = _plan(train, val, config=config, device=device, work_dir=work_dir, keeps_checkpoints=checkpoints is not None)
    resume = None
    if resume_from is not None:
        resume = read_checkpoint(resume_from, fingerprint=plan.fingerprint)
        restore_network(network, resume.network)
        save_weights(resume.best, work_dir / BEST_NAME, config=config)
        log.info("training.resumed", after_epoch=resume.progress.epochs_run)
    reporter = _Caller(on_epoch=on_epoch, check=check, checkpoints=checkpoints)
    if resume and _is_over(plan, resume):
        progress = resume.progress
    elif plan.world > 1:
        progress = run_epochs_among_processes(
            network, plan=plan, train=train, val=val, reporter=reporter, resume_from=resume_from
        )
    else:
        progress = run_epochs(network, plan=plan, train=train, val=val, reporter=reporter, resume=resume)
    network.load_state_dict(load_file(work_dir / BEST_NAME, device="cpu"))
    network.to("cpu").eval()
    return _outcome(plan, progress, resumed_after=resume.progress.epochs_run if resume else 0)


class _Caller:
    """Passes on what a training reports."""

    def __init__(self, *, on_epoch: OnEpoch, check: Check, checkpoints: Checkpoints | None) -> None:
        self.epoch = on_epoch
        self.check = check
        self._checkpoints = checkpoints

    def checkpoint(self, path: Path, epoch: int) -> None:
        if self._checkpoints is not None:
            self._checkpoints.save(path, epoch)


def _plan(
    train: SampleSet,
    val: SampleSet,
    *,
    config: TrainingConfig,
    device: torch.device,
    work_dir: Path,
    keeps_checkpoints: bool,
) -> Plan:
    class_weights: tuple[float, float] | None = None
    if config.class_weights == "balanced":
        class_weights = balanced_weights(background_px=train.background_px, defect_px=train.defect_px)
    elif config.class_weights != "none":
        class_weights = config.class_weights
    return Plan(
        config=config,
        device_type=device.type,
        arithmetic=choose_arithmetic(config.autocast, device),
        class_weights=class_weights,
        work_dir=work_dir,
        keeps_checkpoints=keeps_checkpoints,
        fingerprint=fingerprint_of(
            config.to_json(),
            train_images=len(train),
            train_background_px=train.background_px,
            train_defect_px=train.defect_px,
            val_images=len(val),
            val_background_px=val.background_px,
            val_defect_px=val.defect_px,
        ),
        world=count_devices(
            config.devices, device, batch_size=config.batch_size, train_count=len(train), val_count=len(val)
        ),
    )


def _is_over(plan: Plan, checkpoint: Checkpoint) -> bool:
    pace = plan.pace(steps_per_epoch=1)
    pace.restore(checkpoint.progress.pace)
    return plan.is_over(pace, checkpoint.progress)


def _outcome(plan: Plan, progress: Progress, *, resumed_after: int) -> FitOutcome:
    pace = plan.pace(steps_per_epoch=1)
    pace.restore(progress.pace)
    return FitOutcome(
        epochs_run=progress.epochs_run,
        resumed_after=resumed_after,
        best_epoch=progress.best_epoch,
        best=progress.best,
        stopped_by_budget=pace.is_cut_short,
        stopped_early=not pace.is_over and plan.has_lost_patience(progress),
        autocast=plan.arithmetic,
        class_weights=plan.class_weights,
        devices=plan.world,
        epochs_s=pace.elapsed_s,
        weights_path=plan.work_dir / BEST_NAME,
    )
