"""Trains the tiny recipe on drawn parts, as the tests of resumption and of several processes do."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path

import torch

from trainer.arrays import load_samples
from trainer.build import contract_of
from trainer.config import TrainingConfig
from trainer.data import read_directory
from trainer.fit import fit
from trainer.network import build_network


@dataclass
class Copies:
    """Keeps a copy of every checkpoint, under the number of its epoch."""

    directory: Path
    paths: dict[int, Path] = field(default_factory=dict)

    def save(self, path, epoch):
        kept = self.directory / str(epoch)
        partial = kept.with_suffix(".partial")
        shutil.copyfile(path, partial)
        partial.rename(kept)
        self.paths[epoch] = kept


def fit_parts(
    parts_dir,
    work_dir,
    *,
    check=lambda: None,
    on_epoch=lambda *_: None,
    network=None,
    checkpoints=None,
    resume_from=None,
    **recipe,
):
    """Train, from a network that the seed determines; return it with the outcome."""
    config = TrainingConfig.resolve(recipe)
    torch.manual_seed(config.seed)
    train, val = load_samples(
        read_directory(parts_dir),
        contract=contract_of(config, dataset_revision=None),
        augmentation=config.augmentation,
        seed=config.seed,
    )
    network = network or build_network(config).network
    outcome = fit(
        network,
        train=train,
        val=val,
        config=config,
        device=torch.device("cpu"),
        work_dir=work_dir,
        on_epoch=on_epoch,
        check=check,
        checkpoints=checkpoints,
        resume_from=resume_from,
    )
    return network, outcome
