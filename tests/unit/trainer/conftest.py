"""A tiny training that the tests share: eight drawn parts, 64 x 64 pixels, the smallest usual encoder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from tests.unit.trainer.parts import TINY, write_parts
from trainer.arrays import load_samples
from trainer.build import contract_of
from trainer.config import TrainingConfig
from trainer.data import read_directory
from trainer.export import export_onnx
from trainer.fit import fit
from trainer.network import build_network


@dataclass
class TinyTraining:
    config: TrainingConfig
    files: object
    network: torch.nn.Module
    outcome: object
    epochs: dict[int, dict[str, float]]
    contract: object
    model_path: Path


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Pictures this small are faster on one thread, and threads that wait for each other disturb other tests.

    Set for each module anew: building a model sets the number of the whole process, and sums over another number of
    threads are other sums, so that a training would no longer be repeatable to the bit.
    """
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def parts_dir(tmp_path_factory):
    """Eight parts to train on and the same eight, not all of them square, to validate on."""
    directory = tmp_path_factory.mktemp("parts")
    sizes_wh = [(64, 64), (96, 64), (64, 96), (64, 64), (80, 60), (64, 64), (64, 64), (120, 50)]
    for split in ("train", "val"):
        write_parts(directory, split=split, sizes_wh=sizes_wh, clean=(3,))
    return directory


@pytest.fixture(scope="session")
def tiny_training(parts_dir, tmp_path_factory):
    """The network trained until it knows the eight parts, and its exported file."""
    config = TrainingConfig.resolve(TINY)
    contract = contract_of(config, dataset_revision="parts@1")
    files = read_directory(parts_dir)
    torch.manual_seed(0)
    train, val = load_samples(files, contract=contract, augmentation=config.augmentation)
    network = build_network(config).network
    epochs = {}
    work_dir = tmp_path_factory.mktemp("training")
    outcome = fit(
        network,
        train=train,
        val=val,
        config=config,
        device=torch.device("cpu"),
        work_dir=work_dir,
        on_epoch=epochs.__setitem__,
        check=lambda: None,
    )
    model_path = work_dir / "model.onnx"
    export_onnx(network, contract=contract, path=model_path)
    return TinyTraining(
        config=config,
        files=files,
        network=network,
        outcome=outcome,
        epochs=epochs,
        contract=contract,
        model_path=model_path,
    )
