"""One training as Lightning sees it: steps, validation counts, the best epoch so far, a checkpoint after each.

Several processes run the same task on their part of each batch: counts are summed over them, so that all take the same
decisions, and only the first writes files and reports. Nothing here decides what the recipe is.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytorch_lightning as lightning
import torch
from safetensors.torch import load_file
from torch import distributed, nn
from torch.nn.functional import avg_pool2d

from defectoscope.errors.training import TrainingFailed
from defectoscope.segmentation import PixelCounts, find_lowest_level
from trainer.batches import Batch, TrainingBatches, seed_of
from trainer.checkpoint import Checkpoint, Progress, restore_network, restore_optimiser, write_checkpoint
from trainer.losses import segmentation_loss
from trainer.network import Normalise
from trainer.pace import learning_rate_part
from trainer.plan import BEST_NAME, CHECKPOINT_NAME, Plan, Reporter
from trainer.served import to_levels
from trainer.weights import copy_weights, save_weights

#: A GPU is asked for its losses so many steps at once: each question waits until it has nothing to do.
_STEPS_ON_TRUST = 16
#: Steps of a probability as it is served.
_LEVELS = 256


class Task(lightning.LightningModule):
    """One process's part of a training."""

    class_weights: torch.Tensor | None

    def __init__(
        self,
        network: nn.Module,
        *,
        plan: Plan,
        batches: TrainingBatches,
        reporter: Reporter,
        rank: int = 0,
        resume: Checkpoint | None = None,
    ) -> None:
        """Begin, or go on from a checkpoint of the same training.

        Raises:
            CheckpointInvalid: it is of another network.
        """
        super().__init__()
        self.network = network
        self.normalise = Normalise()
        weights = None if plan.class_weights is None else torch.tensor(plan.class_weights)
        self.register_buffer("class_weights", weights, persistent=False)
        self.pace = plan.pace(steps_per_epoch=batches.steps_per_epoch)
        self.progress = Progress(epochs_run=0, best_epoch=0, best={}, pace=self.pace.to_json())
        self._plan, self._config = plan, plan.config
        self._batches, self._reporter, self._rank = batches, reporter, rank
        self._resume = resume
        self._lowest_level = find_lowest_level(plan.config.threshold)
        if resume:
            restore_network(network, resume.network)
            self.progress = resume.progress
            self.pace.restore(resume.progress.pace)
        # The first iterator is made before the first epoch's hook is called.
        batches.begin(self.progress.epochs_run)
        self._reset()

    def _reset(self) -> None:
        self._began_at = time.monotonic()
        self._train_s = 0.0
        self._losses: list[float] = []
        self._unread: list[torch.Tensor] = []
        self._val_losses: list[float] = []
        self._images = 0
        self._learning_rate = 0.0
        # Pixels of each class by level: background first, (2, 256). Scores at every threshold follow from them.
        self._levels = np.zeros((2, _LEVELS), dtype=np.int64)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Make the optimiser; fused, because parameter by parameter Adam costs a MobileNet a tenth of its step."""
        return torch.optim.Adam(self.network.parameters(), lr=self._config.learning_rate, fused=True)

    def on_train_start(self) -> None:
        """Give optimiser and scaler their state back."""
        if self._resume is None:
            return
        restore_optimiser(self.trainer.optimizers[0], self.network, self._resume.optimiser)
        scaler = self._scaler()
        if scaler and self._resume.progress.scaler:
            scaler.load_state_dict(self._resume.progress.scaler)
        # It is as large as four networks.
        self._resume = None

    def on_train_epoch_start(self) -> None:
        """Tie all chance of the epoch to its number."""
        self._reset()
        self._batches.begin(self.progress.epochs_run)
        torch.manual_seed(seed_of(self._config.seed, self.progress.epochs_run, self._rank))

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Set the learning rate of the step."""
        del batch, batch_idx
        self._learning_rate = self._config.learning_rate * learning_rate_part(self._config.schedule, self.pace.step())
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = self._learning_rate

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        """Return the loss of a batch."""
        del batch_idx
        images, class_mask = batch
        inputs = self.normalise(images)
        if self.pace.is_half_size:
            inputs, class_mask = avg_pool2d(inputs, 2), class_mask[:, ::2, ::2]
        loss = self._loss(self._logits(inputs), class_mask)
        self._unread.append(loss.detach())
        if loss.device.type == "cpu" or len(self._unread) == _STEPS_ON_TRUST:
            self._read_losses()
        self._images += len(images)
        return loss

    def on_train_batch_end(self, *_: Any) -> None:
        """Ask whether to stop, so that a stop takes a step and never an epoch."""
        self._reporter.check()

    def on_validation_epoch_start(self) -> None:
        """End the measured part of the training steps, and let every process judge the same network."""
        self._read_losses()
        self._train_s = time.monotonic() - self._began_at
        if self._plan.world > 1:
            # Running means differ between processes where batch normalisation is not synchronised.
            for buffer in self.network.buffers():
                distributed.broadcast(buffer, src=0)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Count the pixels of a batch."""
        del batch_idx
        images, class_mask = batch
        logits = self._logits(self.normalise(images))
        self._val_losses.append(float(self._loss(logits, class_mask)))
        levels = to_levels(logits.float()).cpu().numpy()  # (N, h, w)
        truth = class_mask.cpu().numpy()
        for class_index in range(2):
            self._levels[class_index] += np.bincount(levels[truth == class_index], minlength=_LEVELS)

    def on_validation_batch_end(self, *_: Any) -> None:
        """Ask whether to stop."""
        self._reporter.check()

    def on_validation_epoch_end(self) -> None:
        """Judge the epoch; keep the best weights, report, write the checkpoint, decide whether to go on."""
        figures = self._figures()
        epoch = self.progress.epochs_run + 1
        best_epoch, best = self.progress.best_epoch, self.progress.best
        if not best or _rank(figures) > _rank(best):
            best_epoch, best = epoch, figures
        self.pace.end_epoch(figures["seconds"])
        scaler = self._scaler()
        self.progress = Progress(
            epochs_run=epoch,
            best_epoch=best_epoch,
            best=best,
            pace=self.pace.to_json(),
            scaler=scaler.state_dict() if scaler else None,
        )
        self.trainer.should_stop = self._plan.is_over(self.pace, self.progress)
        if self._rank == 0:
            self._keep()
            self._reporter.epoch(epoch, figures)
            if self._plan.keeps_checkpoints:
                self._reporter.checkpoint(self._write_checkpoint(), epoch)

    def _figures(self) -> dict[str, float]:
        seconds = torch.tensor(time.monotonic() - self._began_at, dtype=torch.float64, device=self._sums_device())
        sums = torch.tensor(
            [
                *(sum(self._losses), len(self._losses), sum(self._val_losses), len(self._val_losses)),
                *(self._images, *self._levels.ravel().tolist()),
            ],
            dtype=torch.float64,
            device=seconds.device,
        )
        if self._plan.world > 1:
            distributed.all_reduce(sums)
            distributed.all_reduce(seconds, op=distributed.ReduceOp.MAX)
        train_loss, train_batches, val_loss, val_batches, images, *pixels = sums.tolist()
        by_level = np.array(pixels, dtype=np.int64).reshape(2, _LEVELS)
        counts = _count(by_level, self._lowest_level)
        return {
            "train_loss": train_loss / max(train_batches, 1),
            "val_loss": val_loss / max(val_batches, 1),
            "val_iou_defect": counts.iou_defect,
            "val_iou_best": max(_count(by_level, level).iou_defect for level in range(1, _LEVELS)),
            "val_iou_mean": counts.iou_mean,
            "val_dice": counts.dice,
            "learning_rate": self._learning_rate,
            "seconds": float(seconds),
            "images_per_s": images / max(self._train_s, 1e-9),
        }

    def _sums_device(self) -> torch.device:
        """Return where sums over processes are made: GPUs exchange what they hold."""
        return self.device if self._plan.world > 1 else torch.device("cpu")

    def _keep(self) -> None:
        if self.progress.best_epoch == self.progress.epochs_run:
            save_weights(copy_weights(self.network), self._plan.work_dir / BEST_NAME, config=self._config)

    def _write_checkpoint(self) -> Path:
        path = self._plan.work_dir / CHECKPOINT_NAME
        is_best = self.progress.best_epoch == self.progress.epochs_run
        write_checkpoint(
            path,
            network=self.network,
            optimiser=self.trainer.optimizers[0],
            best=None if is_best else load_file(self._plan.work_dir / BEST_NAME, device="cpu"),
            progress=self.progress,
            fingerprint=self._plan.fingerprint,
        )
        return path

    def _scaler(self) -> torch.amp.GradScaler | None:
        return cast("torch.amp.GradScaler | None", getattr(self.trainer.precision_plugin, "scaler", None))

    def _loss(self, logits: torch.Tensor, class_mask: torch.Tensor) -> torch.Tensor:
        return segmentation_loss(logits, class_mask, kind=self._config.loss, class_weights=self.class_weights)

    def _logits(self, inputs: torch.Tensor) -> torch.Tensor:
        if self._config.channels_last:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        logits: torch.Tensor = self.network(inputs)
        return logits

    def _read_losses(self) -> None:
        """Fetch the losses of the last steps.

        Raises:
            TrainingFailed: one is not a number any more.
        """
        if not self._unread:
            return
        for value in torch.stack(self._unread).tolist():
            self._losses.append(value)
            if not np.isfinite(value):
                epoch, step = self.progress.epochs_run + 1, len(self._losses)
                raise TrainingFailed(
                    f"The loss became {value} in step {step} of epoch {epoch}; a lower learning rate helps most often.",
                    epoch=epoch,
                    step=step,
                )
        self._unread.clear()


def _count(by_level: npt.NDArray[np.int64], lowest_level: int) -> PixelCounts:
    """Return the pixel counts at a threshold, from the (2, 256) pixels of background and defect by level."""
    fp, tp = (int(pixels) for pixels in by_level[:, lowest_level:].sum(axis=1))
    tn, fn = (int(pixels) for pixels in by_level[:, :lowest_level].sum(axis=1))
    return PixelCounts(tp, fp, fn, tn)


def _rank(figures: dict[str, float]) -> tuple[float, float]:
    """Order epochs by IoU and, where it says nothing (no defect to find yet), by the loss.

    By the IoU at the best threshold, not at the recipe's: the threshold is chosen after the training, and at a fixed
    one an untrained network that marks half of the picture beats a better one that is not yet sure of anything.
    """
    return figures["val_iou_best"], -figures["val_loss"]
