"""What the processes of one training agree on before it begins, and whom its leading process tells."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from trainer.checkpoint import Progress
from trainer.config import TrainingConfig
from trainer.hardware import Arithmetic
from trainer.pace import Pace

BEST_NAME = "best.safetensors"
CHECKPOINT_NAME = "checkpoint.safetensors"


class Reporter(Protocol):
    """Whoever hears of a training from the process that leads it, and may end it by raising."""

    def epoch(self, epoch: int, figures: dict[str, float]) -> None:
        """Hear the figures of an epoch, from 1."""

    def checkpoint(self, path: Path, epoch: int) -> None:
        """Hear that the file of an epoch is complete; it is overwritten after the next one."""

    def check(self) -> None:
        """Be asked after each step whether to go on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What every process of a training knows; it can be sent to one.

    Attributes:
        config: the recipe.
        device_type: "cuda" or "cpu".
        arithmetic: of forward and backward passes.
        class_weights: of background and defect; None for alike.
        work_dir: existing; the best weights and the checkpoint are kept there.
        keeps_checkpoints: whether anyone wants them.
        fingerprint: that checkpoints are recognised by.
        world: processes.
    """

    config: TrainingConfig
    device_type: str
    arithmetic: Arithmetic
    class_weights: tuple[float, float] | None
    work_dir: Path
    keeps_checkpoints: bool
    fingerprint: str
    world: int = 1

    def pace(self, *, steps_per_epoch: int) -> Pace:
        """Return a pace at the start."""
        return Pace(
            epochs=self.config.epochs,
            steps_per_epoch=steps_per_epoch,
            half_size_share=self.config.half_size_share,
            time_budget_s=self.config.time_budget_s,
        )

    def is_over(self, pace: Pace, progress: Progress) -> bool:
        """Say whether no epoch follows: the recipe's are done, time is up, or none was better for long."""
        return pace.is_over or self.has_lost_patience(progress)

    def has_lost_patience(self, progress: Progress) -> bool:
        """Say whether as many epochs as the recipe allows went by without a better one."""
        patience = self.config.patience
        return patience is not None and progress.epochs_run - progress.best_epoch >= patience
