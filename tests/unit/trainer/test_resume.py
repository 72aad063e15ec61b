"""A training that was ended in any way goes on as if nothing had happened, and never on a file that does not fit."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from defectoscope.errors.training import CheckpointInvalid, TrainingInterrupted
from tests.unit.trainer.parts import TINY
from tests.unit.trainer.training import Copies, fit_parts

RECIPE = {**TINY, "epochs": 4, "augmentation": "standard", "schedule": "one_cycle", "autocast": "off"}

#: Trains and is killed in the middle of the third epoch: two steps each, and eight images to validate on in two.
_KILLED = """
import os, signal, sys
from pathlib import Path
import torch
from tests.unit.trainer.test_resume import RECIPE
from tests.unit.trainer.training import Copies, fit_parts

asked = []
def kill_in_the_third_epoch():
    asked.append(True)
    if len(asked) == 9:
        os.kill(os.getpid(), signal.SIGKILL)

torch.set_num_threads(1)
parts, work, kept = map(Path, sys.argv[1:])
fit_parts(parts, work, check=kill_in_the_third_epoch, checkpoints=Copies(kept), **RECIPE)
"""


def _equal(first, second):
    """Whether two trainings have come to the same network and optimiser, by their checkpoints."""
    ours, theirs = load_file(first), load_file(second)
    return ours.keys() == theirs.keys() and all(torch.equal(value, theirs[name]) for name, value in ours.items())


@pytest.fixture(scope="module")
def uninterrupted(parts_dir, tmp_path_factory):
    kept = Copies(tmp_path_factory.mktemp("kept"))
    epochs = {}
    network, outcome = fit_parts(
        parts_dir, tmp_path_factory.mktemp("work"), on_epoch=epochs.__setitem__, checkpoints=kept, **RECIPE
    )
    return network, outcome, epochs, kept


def test_a_checkpoint_is_given_out_after_every_epoch(uninterrupted):
    *_, kept = uninterrupted

    assert list(kept.paths) == [1, 2, 3, 4]


def test_a_killed_training_ends_with_the_weights_of_an_uninterrupted_one(uninterrupted, parts_dir, tmp_path):
    _, outcome, figures, expected = uninterrupted
    work, kept = tmp_path / "work", tmp_path / "kept"
    work.mkdir(), kept.mkdir()

    killed = subprocess.run([sys.executable, "-c", _KILLED, parts_dir, work, kept], check=False, timeout=120)
    epochs = {}
    # On another machine: nothing but the last file that was given out is there.
    shutil.rmtree(work)
    work.mkdir()
    left_behind = sorted(path.name for path in kept.iterdir())
    _, resumed = fit_parts(
        parts_dir, work, on_epoch=epochs.__setitem__, checkpoints=Copies(kept), resume_from=kept / "2", **RECIPE
    )

    assert killed.returncode == -signal.SIGKILL
    assert left_behind == ["1", "2"]
    assert list(epochs) == [3, 4]
    assert (resumed.resumed_after, resumed.epochs_run, resumed.best_epoch) == (2, 4, outcome.best_epoch)
    for name in ("train_loss", "val_loss", "val_iou_defect", "learning_rate"):
        assert [epochs[epoch][name] for epoch in (3, 4)] == [figures[epoch][name] for epoch in (3, 4)]
    assert _equal(kept / "4", expected.paths[4])


def test_a_training_may_be_ended_after_every_epoch(uninterrupted, parts_dir, tmp_path):
    _, outcome, _, expected = uninterrupted
    kept = Copies(tmp_path)
    last, asked = None, 0

    for epoch in range(1, 5):

        def end_of_patience(epoch=epoch):
            if epoch in kept.paths:
                raise TrainingInterrupted

        work = tmp_path / f"work-{epoch}"
        work.mkdir()
        try:
            _, resumed = fit_parts(parts_dir, work, check=end_of_patience, checkpoints=kept, resume_from=last, **RECIPE)
        except TrainingInterrupted:
            asked += 1
        last = kept.paths[epoch]

    assert asked == 3
    assert resumed.best_epoch == outcome.best_epoch
    assert _equal(kept.paths[4], expected.paths[4])


def test_a_checkpoint_of_all_epochs_gives_the_best_weights_without_training(uninterrupted, parts_dir, tmp_path):
    expected, outcome, _, kept = uninterrupted
    epochs = {}

    network, resumed = fit_parts(parts_dir, tmp_path, on_epoch=epochs.__setitem__, resume_from=kept.paths[4], **RECIPE)

    assert epochs == {}
    assert (resumed.best_epoch, resumed.best, resumed.epochs_run) == (outcome.best_epoch, outcome.best, 4)
    assert not network.training
    theirs = expected.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in network.state_dict().items())


def test_the_time_before_a_resumption_counts_against_the_budget(parts_dir, tmp_path):
    recipe = {**RECIPE, "time_budget_s": 1e-3}
    kept = Copies(tmp_path)
    fit_parts(parts_dir, tmp_path, checkpoints=kept, **recipe)
    epochs = {}

    _, resumed = fit_parts(parts_dir, tmp_path, on_epoch=epochs.__setitem__, resume_from=kept.paths[1], **recipe)

    assert epochs == {}
    assert resumed.stopped_by_budget


@pytest.mark.parametrize("changes", [{"learning_rate": 1e-3}, {"encoder": "tu-resnet14t"}], ids=["rate", "encoder"])
def test_a_checkpoint_of_another_recipe_is_refused_before_anything_is_trained(
    uninterrupted, parts_dir, tmp_path, changes
):
    *_, kept = uninterrupted
    epochs = {}

    with pytest.raises(CheckpointInvalid, match="another recipe"):
        fit_parts(parts_dir, tmp_path, on_epoch=epochs.__setitem__, resume_from=kept.paths[2], **{**RECIPE, **changes})

    assert epochs == {}


def test_bf16_goes_on_within_a_small_tolerance(parts_dir, tmp_path):
    recipe = {**RECIPE, "epochs": 2, "autocast": "bf16"}
    (tmp_path / "whole").mkdir()
    (tmp_path / "rest").mkdir()
    kept = Copies(tmp_path)

    fit_parts(parts_dir, tmp_path / "whole", checkpoints=kept, **recipe)
    again = Copies(tmp_path / "rest")
    fit_parts(parts_dir, tmp_path / "rest", checkpoints=again, resume_from=kept.paths[1], **recipe)

    ours, theirs = load_file(kept.paths[2]), load_file(again.paths[2])
    assert all(torch.allclose(value.float(), theirs[name].float(), atol=1e-3) for name, value in ours.items())
