"""Trains a network on pytorch-lightning, epoch by epoch, and keeps the best one by validation IoU.

Validation during training is scored at the network's input size, without the minimum area: it compares epochs, and the
labels are in memory at that size. The figures a version is judged by come from `trainer.evaluate`, at each image's own
resolution. Weights are kept as safetensors: reading them back can run no code.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as lightning
import structlog
import torch
from pytorch_lightning.utilities.exceptions import SIGTERMException
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.functional import avg_pool2d
from torch.utils.data import DataLoader

from defectoscope.errors import TrainingFailed, TrainingInterrupted
from defectoscope.segmentation import PixelCounts, count_pixels
from defectoscope.segmentation.segment import find_lowest_level
from trainer.arrays import SampleSet
from trainer.config import TrainingConfig
from trainer.hardware import gains_from_bf16
from trainer.losses import segmentation_loss
from trainer.network import Normalise
from trainer.pace import Pace, learning_rate_part
from trainer.served import to_levels

log = structlog.get_logger(__name__)

#: Told the epoch, from 1, and its figures.
OnEpoch = Callable[[int, dict[str, float]], None]
#: Raises when the training has to stop now.
Check = Callable[[], None]

_Batch = tuple[torch.Tensor, torch.Tensor]
_READING_WORKERS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class FitOutcome:
    """How a training went.

    Attributes:
        epochs_run: epochs trained.
        best_epoch: the one whose weights the network now has, from 1.
        best: its figures.
        stopped_by_budget: whether the time budget left out epochs of the recipe.
        autocast: arithmetic of the training: "bf16", or "off" for fp32.
    """

    epochs_run: int
    best_epoch: int
    best: dict[str, float]
    stopped_by_budget: bool
    autocast: str


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
) -> FitOutcome:
    """Train a network and leave it with the weights of its best epoch, in eval mode on the CPU.

    Args:
        network: (N, 3, h, w) normalised float32 to (N, 2, h, w) logits.
        train: at least two images.
        val: at least one image.
        config: the recipe.
        device: where to compute.
        work_dir: where the best weights are kept meanwhile.
        on_epoch: told the figures of each epoch.
        check: asked after each step whether to stop; it raises what it means.

    Raises:
        TrainingFailed: the loss is not a number any more.
        TrainingInterrupted: the process was told to stop.
    """
    bf16 = config.autocast == "bf16" or (config.autocast == "auto" and gains_from_bf16(device))
    loader = _training_loader(train, batch_size=config.batch_size, seed=config.seed)
    pace = Pace(
        epochs=config.epochs,
        steps_per_epoch=len(loader),
        half_size_share=config.half_size_share,
        time_budget_s=config.time_budget_s,
    )
    task = _Task(network, config=config, pace=pace, best_path=work_dir / "best.safetensors", on_epoch=on_epoch)
    if config.channels_last:
        network.to(memory_format=torch.channels_last)
    with _quiet_lightning():
        trainer = lightning.Trainer(
            accelerator="gpu" if device.type == "cuda" else "cpu",
            devices=1,
            precision="bf16-mixed" if bf16 else "32-true",
            max_epochs=config.epochs,
            callbacks=[_Checks(check)],
            default_root_dir=work_dir,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
        try:
            trainer.fit(task, loader, _loader(val, batch_size=config.batch_size))
        except SIGTERMException as exc:
            # Lightning notices the signal too; whichever is first, the run ends by the same name.
            raise TrainingInterrupted from exc
    network.load_state_dict(load_file(task.best_path, device="cpu"))
    network.to("cpu").eval()
    return FitOutcome(
        epochs_run=task.epochs_run,
        best_epoch=task.best_epoch,
        best=task.best,
        stopped_by_budget=pace.is_cut_short,
        autocast="bf16" if bf16 else "off",
    )


class _Task(lightning.LightningModule):
    """One training: loss, learning rate, validation counts, and the best epoch so far."""

    def __init__(
        self, network: nn.Module, *, config: TrainingConfig, pace: Pace, best_path: Path, on_epoch: OnEpoch
    ) -> None:
        super().__init__()
        self.network = network
        self.normalise = Normalise()
        self.best_path = best_path
        self.best_epoch = 0
        self.best: dict[str, float] = {}
        self.epochs_run = 0
        self._config = config
        self._pace = pace
        self._on_epoch = on_epoch
        self._lowest_level = find_lowest_level(config.threshold)
        self._reset()

    def _reset(self) -> None:
        self._began_at = time.monotonic()
        self._train_s = 0.0
        self._train_losses: list[float] = []
        self._val_losses: list[float] = []
        self._images = 0
        self._learning_rate = 0.0
        self._counts = PixelCounts(0, 0, 0, 0)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.network.parameters(), lr=self._config.learning_rate)

    def on_train_epoch_start(self) -> None:
        self._reset()

    def on_train_batch_start(self, batch: _Batch, batch_idx: int) -> None:
        del batch, batch_idx
        part = learning_rate_part(self._config.schedule, self._pace.step())
        self._learning_rate = self._config.learning_rate * part
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = self._learning_rate

    def training_step(self, batch: _Batch, batch_idx: int) -> torch.Tensor:
        images, class_mask = batch
        inputs = self.normalise(images)
        if self._pace.is_half_size:
            inputs, class_mask = avg_pool2d(inputs, 2), class_mask[:, ::2, ::2]
        loss = segmentation_loss(self._logits(inputs), class_mask, kind=self._config.loss)
        value = float(loss.detach())
        if not torch.isfinite(loss.detach()):
            raise TrainingFailed(
                f"The loss became {value} in step {batch_idx + 1} of epoch {self.current_epoch + 1}; "
                "a lower learning rate helps most often.",
                epoch=self.current_epoch + 1,
                step=batch_idx + 1,
            )
        self._train_losses.append(value)
        self._images += len(images)
        return loss

    def on_validation_epoch_start(self) -> None:
        self._train_s = time.monotonic() - self._began_at

    def validation_step(self, batch: _Batch, batch_idx: int) -> None:
        del batch_idx
        images, class_mask = batch
        logits = self._logits(self.normalise(images))
        self._val_losses.append(float(segmentation_loss(logits, class_mask, kind=self._config.loss)))
        levels = to_levels(logits.float()).cpu().numpy()  # (N, h, w)
        claimed = (levels >= self._lowest_level) * np.uint8(255)
        for mask, truth in zip(claimed, class_mask.cpu().numpy(), strict=True):
            self._counts = self._counts + count_pixels(mask, truth)

    def on_validation_epoch_end(self) -> None:
        seconds = time.monotonic() - self._began_at
        self.epochs_run += 1
        figures = {
            "train_loss": _mean(self._train_losses),
            "val_loss": _mean(self._val_losses),
            "val_iou_defect": self._counts.iou_defect,
            "val_iou_mean": self._counts.iou_mean,
            "val_dice": self._counts.dice,
            "learning_rate": self._learning_rate,
            "seconds": seconds,
            "images_per_s": self._images / max(self._train_s, 1e-9),
        }
        if not self.best or _rank(figures) > _rank(self.best):
            self.best, self.best_epoch = figures, self.epochs_run
            weights = {name: value.detach().cpu().contiguous() for name, value in self.network.state_dict().items()}
            save_file(weights, self.best_path)
        self._pace.end_epoch(seconds)
        self.trainer.should_stop = self._pace.is_over
        self._on_epoch(self.epochs_run, figures)

    def _logits(self, inputs: torch.Tensor) -> torch.Tensor:
        if self._config.channels_last:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        logits: torch.Tensor = self.network(inputs)
        return logits


class _Checks(lightning.Callback):
    """Asks after each batch whether to stop, so that a stop takes a step and never an epoch."""

    def __init__(self, check: Check) -> None:
        self._check = check

    def on_train_batch_end(self, *_: Any) -> None:
        self._check()

    def on_validation_batch_end(self, *_: Any) -> None:
        self._check()


def _rank(figures: dict[str, float]) -> tuple[float, float]:
    """Order epochs by IoU and, where it says nothing (no defect to find yet), by the loss."""
    return figures["val_iou_defect"], -figures["val_loss"]


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _training_loader(samples: SampleSet, *, batch_size: int, seed: int) -> DataLoader[_Batch]:
    batch_size = min(batch_size, len(samples))
    return _loader(
        samples,
        batch_size=batch_size,
        shuffle=True,
        generator=torch.Generator().manual_seed(seed),
        # A last batch of one image has a single value per channel after global pooling, and batch normalisation fails.
        drop_last=len(samples) % batch_size == 1,
    )


def _loader(samples: SampleSet, *, batch_size: int, **options: Any) -> DataLoader[_Batch]:
    if not samples.in_memory:
        # Started afresh rather than forked: this process has threads, and a fork copies their locks as they are.
        options |= {
            "num_workers": _READING_WORKERS,
            "multiprocessing_context": "spawn",
            "persistent_workers": True,
        }
    return DataLoader(samples, batch_size=batch_size, **options)


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Keep Lightning's banners and two of its warnings to itself; every other warning passes."""
    banners = logging.getLogger("pytorch_lightning.utilities.rank_zero")
    level = banners.level
    banners.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            # Samples lie in memory: reading workers would only copy them between processes.
            warnings.filterwarnings("ignore", message=".*does not have many workers.*")
            # Lightning 2.6 asks torch 2.15 for a tree's leaves in the older way.
            warnings.filterwarnings("ignore", message=".*LeafSpec.* is deprecated", category=FutureWarning)
            # The device was chosen by a setting.
            warnings.filterwarnings("ignore", message="GPU available but not used")
            yield
    finally:
        banners.setLevel(level)
