"""Runs the epochs of a training on Lightning, in this process, on one device or on its part of several."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as lightning
import torch
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.utilities.exceptions import SIGTERMException
from torch import nn

from defectoscope.errors.training import TrainingInterrupted
from trainer.arrays import SampleSet
from trainer.batches import TrainingBatches, validation_loader
from trainer.checkpoint import Checkpoint, Progress
from trainer.plan import Plan, Reporter
from trainer.task import Task

_PRECISIONS: dict[str, Any] = {"bf16": "bf16-mixed", "fp16": "16-mixed", "off": "32-true"}


def run_epochs(
    network: nn.Module,
    *,
    plan: Plan,
    train: SampleSet,
    val: SampleSet,
    reporter: Reporter,
    rank: int = 0,
    resume: Checkpoint | None = None,
) -> Progress:
    """Train to the end of the plan; the best weights lie in its work directory then.

    Args:
        network: (N, 3, h, w) normalised float32 to (N, 2, h, w) logits; changed in place.
        plan: the same in every process.
        train: at least two images for each process.
        val: at least one for each process.
        reporter: told of every epoch where the rank is 0, and asked by every process whether to go on.
        rank: this process, from 0; with more than one, `torch.distributed` is initialised.
        resume: where to go on from; at least one epoch is left to train.

    Raises:
        CheckpointInvalid: the checkpoint is of another network.
        TrainingFailed: the loss is not a number any more.
        TrainingInterrupted: the process was told to stop.
    """
    config = plan.config
    batches = TrainingBatches(train, batch_size=config.batch_size, seed=config.seed, rank=rank, world=plan.world)
    validation = validation_loader(val, batch_size=config.batch_size, rank=rank, world=plan.world)
    task = Task(network, plan=plan, batches=batches, reporter=reporter, rank=rank, resume=resume)
    if config.channels_last:
        network.to(memory_format=torch.channels_last)
    on_gpus = plan.device_type == "cuda"
    with _quiet_lightning():
        trainer = lightning.Trainer(
            accelerator="gpu" if on_gpus else "cpu",
            devices=plan.world,
            strategy=_among_processes(rank) if plan.world > 1 else "auto",
            # A recipe shall mean the same on any number of GPUs. Torch cannot do it on a CPU.
            sync_batchnorm=plan.world > 1 and on_gpus,
            precision=_PRECISIONS[plan.arithmetic],
            max_epochs=config.epochs - task.progress.epochs_run,
            # Each process takes its part of a batch itself.
            use_distributed_sampler=False,
            default_root_dir=plan.work_dir,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
        try:
            trainer.fit(task, batches.loader, validation)
        except SIGTERMException as exc:
            # Lightning notices the signal too; whichever is first, the run ends by the same name.
            raise TrainingInterrupted from exc
    return task.progress


class _StartedProcess(LightningEnvironment):
    """Tells Lightning that its processes are there already: it shall not start the trainer's command line anew."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self._rank = rank

    @property
    def creates_processes_externally(self) -> bool:
        return True

    def local_rank(self) -> int:
        return self._rank


def _among_processes(rank: int) -> DDPStrategy:
    # Some encoders have parameters that no loss reaches; without the search torch would wait for their gradients.
    return DDPStrategy(cluster_environment=_StartedProcess(rank), find_unused_parameters=True)


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Keep Lightning's banners and some of its warnings to itself; every other warning passes."""
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
