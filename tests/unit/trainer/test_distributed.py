"""Several processes train one network: like one process where that can be, and none is left behind by any end."""

from __future__ import annotations

import multiprocessing
import os
import signal

import numpy as np
import pytest
import torch

from defectoscope.errors.training import TrainingFailed, TrainingInterrupted
from defectoscope.segmentation import PixelCounts, count_pixels
from tests.unit.trainer.parts import TINY
from tests.unit.trainer.training import Copies, fit_parts
from trainer.arrays import load_samples
from trainer.build import contract_of
from trainer.config import TrainingConfig
from trainer.data import read_directory
from trainer.network import build_network
from trainer.served import torch_engine

RECIPE = {**TINY, "epochs": 3, "devices": 2, "autocast": "off", "augmentation": "flips"}

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def trained(parts_dir, tmp_path_factory):
    """A training of two processes."""
    kept, epochs = Copies(tmp_path_factory.mktemp("kept")), {}
    network, outcome = fit_parts(
        parts_dir, tmp_path_factory.mktemp("work"), on_epoch=epochs.__setitem__, checkpoints=kept, **RECIPE
    )
    return network, outcome, epochs, kept


def test_two_processes_learn_together_and_report_as_one(trained):
    network, outcome, epochs, kept = trained

    assert outcome.devices == 2
    assert list(epochs) == list(kept.paths) == [1, 2, 3]
    assert epochs[3]["train_loss"] < epochs[1]["train_loss"]
    assert not network.training
    assert multiprocessing.active_children() == []


def test_the_figures_are_those_of_the_kept_network_on_all_images(trained, parts_dir):
    network, outcome, *_ = trained
    config = TrainingConfig.resolve(RECIPE)
    contract = contract_of(config, dataset_revision=None)
    _, val = load_samples(read_directory(parts_dir), contract=contract, augmentation="none")

    counts = PixelCounts(0, 0, 0, 0)
    for image, class_mask in val:
        levels = torch_engine(network)(image.permute(1, 2, 0)[None].numpy())
        counts += count_pixels((levels[0] >= 128) * np.uint8(255), class_mask.numpy())

    assert outcome.best["val_iou_defect"] == pytest.approx(counts.iou_defect, abs=2e-3)
    assert outcome.best["val_dice"] == pytest.approx(counts.dice, abs=2e-3)


def test_a_stop_ends_every_process(parts_dir, tmp_path):
    asked = []

    def stop_after_the_first_epoch():
        if asked:
            raise TrainingInterrupted

    with pytest.raises(TrainingInterrupted):
        fit_parts(
            parts_dir, tmp_path, check=stop_after_the_first_epoch, on_epoch=lambda *_: asked.append(True), **RECIPE
        )

    assert multiprocessing.active_children() == []


def test_a_process_that_is_killed_ends_the_training_by_name(parts_dir, tmp_path):
    def kill_one(*_):
        os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)

    with pytest.raises(TrainingFailed, match=r"Training process [01] ended by itself, with status -9"):
        fit_parts(parts_dir, tmp_path, on_epoch=kill_one, **RECIPE)

    assert multiprocessing.active_children() == []


def test_a_loss_that_is_not_a_number_is_named_as_in_one_process(parts_dir, tmp_path):
    network = build_network(TrainingConfig.resolve(RECIPE)).network
    with torch.no_grad():
        next(network.parameters()).fill_(torch.nan)

    with pytest.raises(TrainingFailed, match="The loss became nan in step 1 of epoch 1"):
        fit_parts(parts_dir, tmp_path, network=network, **RECIPE)
