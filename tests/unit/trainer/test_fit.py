"""Training itself: it learns, keeps the best epoch, and ends by name."""

from __future__ import annotations

import math

import pytest
import torch
from safetensors.torch import load_file

from defectoscope.errors.api import InvalidRequest
from defectoscope.errors.training import TrainingFailed, TrainingInterrupted
from tests.unit.trainer.parts import TINY
from tests.unit.trainer.training import fit_parts
from trainer.config import TrainingConfig
from trainer.network import build_network


def _fit(parts_dir, tmp_path, **changes):
    return fit_parts(parts_dir, tmp_path, **{**TINY, "epochs": 2, **changes})


def test_a_network_learns_eight_drawn_parts(tiny_training):
    first, *_, last = tiny_training.epochs.values()

    assert last["train_loss"] < first["train_loss"] / 2
    assert tiny_training.outcome.best["val_iou_defect"] > 0.6
    assert tiny_training.outcome.best["val_iou_defect"] > first["val_iou_defect"]


def test_every_epoch_reports_the_same_finite_figures(tiny_training):
    expected = {
        "train_loss",
        "val_loss",
        "val_iou_best",
        "val_iou_defect",
        "val_iou_mean",
        "val_dice",
        "learning_rate",
        "seconds",
        "images_per_s",
    }

    assert list(tiny_training.epochs) == list(range(1, 9))
    assert all(set(figures) == expected for figures in tiny_training.epochs.values())
    assert all(math.isfinite(value) for figures in tiny_training.epochs.values() for value in figures.values())


def test_the_network_ends_with_the_weights_of_its_best_epoch(tiny_training):
    kept = load_file(tiny_training.model_path.with_name("best.safetensors"))
    weights = tiny_training.network.state_dict()

    best = max(tiny_training.epochs, key=lambda epoch: tiny_training.epochs[epoch]["val_iou_best"])
    assert tiny_training.outcome.best_epoch == best
    assert all(torch.equal(kept[name], weights[name]) for name in weights)
    assert not tiny_training.network.training


def test_a_seed_gives_the_same_weights_again(parts_dir, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()

    first, _ = _fit(parts_dir, tmp_path / "a", epochs=1, augmentation="flips")
    second, _ = _fit(parts_dir, tmp_path / "b", epochs=1, augmentation="flips")

    theirs = second.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in first.state_dict().items())


def test_a_loss_that_is_not_a_number_ends_the_training_by_name(parts_dir, tmp_path):
    network = build_network(TrainingConfig.resolve(TINY)).network
    with torch.no_grad():
        next(network.parameters()).fill_(math.nan)

    with pytest.raises(TrainingFailed, match="The loss became nan in step 1 of epoch 1"):
        _fit(parts_dir, tmp_path, network=network)


def test_a_stop_takes_effect_after_the_step_it_was_asked_in(parts_dir, tmp_path):
    asked, epochs = [], []

    def stop_after_three():
        asked.append(True)
        if len(asked) == 3:
            raise TrainingInterrupted

    with pytest.raises(TrainingInterrupted):
        _fit(parts_dir, tmp_path, check=stop_after_three, on_epoch=lambda *epoch: epochs.append(epoch))

    assert len(asked) == 3
    assert epochs == []


def test_a_time_budget_stops_after_the_first_epoch_that_leaves_no_time_for_another(parts_dir, tmp_path):
    _, outcome = _fit(parts_dir, tmp_path, epochs=50, time_budget_s=1e-3)

    assert outcome.epochs_run == 1
    assert outcome.stopped_by_budget


def test_a_last_batch_of_one_image_is_left_out(parts_dir, tmp_path):
    _, outcome = _fit(parts_dir, tmp_path, epochs=1, batch_size=7)

    assert outcome.epochs_run == 1


def test_half_size_epochs_come_first_and_train_too(parts_dir, tmp_path):
    epochs = {}

    _fit(parts_dir, tmp_path, epochs=2, half_size_share=0.5, on_epoch=epochs.__setitem__)

    assert epochs[2]["train_loss"] < epochs[1]["train_loss"]


def test_patience_ends_a_training_that_gets_no_better(parts_dir, tmp_path):
    # At a rate this small nothing changes but the running means, and those soon no more.
    _, outcome = _fit(parts_dir, tmp_path, epochs=30, learning_rate=1e-12, patience=2)

    assert outcome.stopped_early
    assert not outcome.stopped_by_budget
    assert outcome.epochs_run == outcome.best_epoch + 2 < 30


def test_a_training_that_ends_by_itself_was_not_stopped_early(parts_dir, tmp_path):
    _, outcome = _fit(parts_dir, tmp_path, patience=2)

    assert (outcome.epochs_run, outcome.stopped_early) == (2, False)


@pytest.mark.parametrize("loss", ["cross_entropy", "focal", "focal+dice"])
def test_every_loss_trains_with_balanced_weights(parts_dir, tmp_path, loss):
    epochs = {}

    _, outcome = _fit(parts_dir, tmp_path, epochs=3, loss=loss, class_weights="balanced", on_epoch=epochs.__setitem__)

    background, defect = outcome.class_weights
    assert defect > 1 > background
    assert epochs[3]["train_loss"] < epochs[1]["train_loss"]


def test_the_weights_of_a_recipe_are_taken_as_they_are(parts_dir, tmp_path):
    _, outcome = _fit(parts_dir, tmp_path, epochs=1, class_weights=[1.0, 7.0])

    assert outcome.class_weights == (1.0, 7.0)


def test_fp16_on_a_cpu_is_refused_before_anything_is_trained(parts_dir, tmp_path):
    epochs = []

    with pytest.raises(InvalidRequest, match="fp16 needs a GPU; on a CPU choose auto, bf16 or off"):
        _fit(parts_dir, tmp_path, autocast="fp16", on_epoch=lambda *epoch: epochs.append(epoch))

    assert epochs == []


def test_a_training_goes_on_from_the_best_weights_of_another(parts_dir, tmp_path):
    (tmp_path / "first").mkdir()
    (tmp_path / "second").mkdir()
    _, champion = _fit(parts_dir, tmp_path / "first", epochs=6)
    config = TrainingConfig.resolve({**TINY, "start": "champion"})
    network = build_network(config, initial_weights=champion.weights_path).network
    epochs = {}

    _fit(
        parts_dir,
        tmp_path / "second",
        network=network,
        start="champion",
        learning_rate=1e-5,
        on_epoch=epochs.__setitem__,
    )

    assert epochs[1]["val_loss"] == pytest.approx(champion.best["val_loss"], rel=0.15)
