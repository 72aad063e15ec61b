"""A checkpoint gives back what was put in, bit for bit; what is damaged or of another training is refused by name."""

from __future__ import annotations

import os
import resource

import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from defectoscope.errors.storage import DiskFull
from defectoscope.errors.training import CheckpointInvalid
from trainer.checkpoint import (
    Progress,
    fingerprint_of,
    read_checkpoint,
    restore_network,
    restore_optimiser,
    write_checkpoint,
)
from trainer.failures import is_disk_full, named_failures
from trainer.weights import copy_weights

PROGRESS = Progress(
    epochs_run=3,
    best_epoch=2,
    best={"val_iou_defect": 1 / 3, "val_loss": 0.1},
    pace={"steps_done": 12, "elapsed_s": 0.1 + 0.2},
    scaler={"scale": 65536.0, "_growth_tracker": 7},
)
FINGERPRINT = fingerprint_of({"epochs": 4}, train_images=8)


def _trained(seed=0):
    """A small network with every kind of tensor a real one has, and its optimiser after two steps."""
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))
    network.to(memory_format=torch.channels_last)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-2, fused=True)
    for _ in range(2):
        _step(network, optimiser)
    return network, optimiser


def _step(network, optimiser):
    optimiser.zero_grad()
    network(torch.linspace(-1, 1, 2 * 3 * 6 * 6).view(2, 3, 6, 6)).square().mean().backward()
    optimiser.step()


@pytest.fixture
def written(tmp_path):
    network, optimiser = _trained()
    best = {name: value + 1 for name, value in copy_weights(network).items()}
    path = tmp_path / "checkpoint.safetensors"
    write_checkpoint(path, network=network, optimiser=optimiser, best=best, progress=PROGRESS, fingerprint=FINGERPRINT)
    return path, network, optimiser, best


def test_progress_and_weights_come_back_as_they_were(written):
    path, network, _, best = written

    checkpoint = read_checkpoint(path, fingerprint=FINGERPRINT)

    assert checkpoint.progress == PROGRESS
    assert all(torch.equal(value, checkpoint.network[name]) for name, value in network.state_dict().items())
    assert all(torch.equal(value, checkpoint.best[name]) for name, value in best.items())
    assert [path.name for path in path.parent.iterdir()] == [path.name]


def test_a_restored_training_takes_the_very_same_steps(written):
    path, network, optimiser, _ = written
    other, other_optimiser = _trained(seed=9)

    checkpoint = read_checkpoint(path, fingerprint=FINGERPRINT)
    restore_network(other, checkpoint.network)
    restore_optimiser(other_optimiser, other, checkpoint.optimiser)
    for _ in range(3):
        _step(network, optimiser)
        _step(other, other_optimiser)

    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), other.parameters(), strict=True))
    moments = other_optimiser.state[other[0].weight]["exp_avg"]
    assert moments.stride() == other[0].weight.stride()


def test_weights_that_are_the_best_themselves_are_kept_once(written, tmp_path):
    path, network, optimiser, _ = written
    lean = tmp_path / "lean.safetensors"

    write_checkpoint(lean, network=network, optimiser=optimiser, best=None, progress=PROGRESS, fingerprint=FINGERPRINT)

    best = read_checkpoint(lean, fingerprint=FINGERPRINT).best
    assert all(torch.equal(value, best[name]) for name, value in network.state_dict().items())
    assert lean.stat().st_size < path.stat().st_size


def _cut(path):
    os.truncate(path, path.stat().st_size // 2)


def _flip_a_bit(path):
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)


def _change_the_head(path):
    with safe_open(path, framework="pt") as file:
        head = file.metadata()
    head["defectoscope.checkpoint"] = head["defectoscope.checkpoint"].replace('"epochs_run": 3', '"epochs_run": 4')
    save_file(load_file(path), path, metadata=head)


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        pytest.param(lambda path: path.unlink(), "cannot be read", id="missing"),
        pytest.param(_cut, "cannot be read", id="cut off"),
        pytest.param(lambda path: path.write_bytes(b""), "cannot be read", id="empty"),
        pytest.param(lambda path: path.write_bytes(b"\x80\x04K\x01." * 9), "cannot be read", id="a pickle"),
        pytest.param(_flip_a_bit, "its hash differs", id="a bit changed in a tensor"),
        pytest.param(_change_the_head, "its hash differs", id="a figure changed in the head"),
        pytest.param(lambda path: save_file({"a": torch.ones(1)}, path), "is no checkpoint", id="other tensors"),
    ],
)
def test_a_damaged_checkpoint_is_refused(written, damage, sentence):
    path, *_ = written
    damage(path)

    with pytest.raises(CheckpointInvalid, match=sentence):
        read_checkpoint(path, fingerprint=FINGERPRINT)


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(fingerprint_of({"epochs": 5}, train_images=8), id="recipe"),
        pytest.param(fingerprint_of({"epochs": 4}, train_images=9), id="labels"),
    ],
)
def test_a_checkpoint_of_another_training_is_refused(written, other):
    path, *_ = written

    with pytest.raises(CheckpointInvalid, match="another recipe or other labels"):
        read_checkpoint(path, fingerprint=other)


def test_a_checkpoint_of_another_network_is_refused(written):
    path, *_ = written
    checkpoint = read_checkpoint(path, fingerprint=FINGERPRINT)

    with pytest.raises(CheckpointInvalid, match="of another network"):
        restore_network(nn.Sequential(nn.Conv2d(3, 4, 5)), checkpoint.network)


@pytest.mark.parametrize(
    "failure",
    [
        pytest.param(OSError(28, "No space left on device"), id="disk"),
        pytest.param(OSError(122, "Disk quota exceeded"), id="quota"),
        pytest.param(SafetensorError("I/O error: No space left on device (os error 28)"), id="safetensors"),
    ],
)
def test_a_full_disk_has_a_name_of_its_own(failure):
    with pytest.raises(DiskFull), named_failures():
        raise failure


def test_a_file_that_may_not_grow_leaves_the_earlier_checkpoint_whole(written):
    path, network, optimiser, best = written
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    resource.setrlimit(resource.RLIMIT_FSIZE, (512, limits[1]))
    try:
        with pytest.raises(SafetensorError) as caught:
            write_checkpoint(
                path, network=network, optimiser=optimiser, best=best, progress=PROGRESS, fingerprint=FINGERPRINT
            )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    assert not is_disk_full(caught.value)
    assert path.read_bytes() == before
    assert [path.name for path in path.parent.iterdir()] == [path.name]
