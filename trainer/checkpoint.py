"""The state of a training after an epoch, in one safetensors file: enough to go on as if nothing had happened.

Network, optimiser and the best weights so far are its tensors; the rest is JSON in the file's head, with a hash over
everything. Reading it can run no code. A file that is damaged or of another training is refused by name, never used in
part. Data order and augmentation need no state: they follow from the seed and the epoch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from defectoscope.errors.training import CheckpointInvalid
from trainer.weights import copy_weights

#: Changed when files of an earlier form can no longer be read.
_FORMAT = 1
_HEAD = "defectoscope.checkpoint"
_HASH = "sha256"
_NETWORK, _OPTIMISER, _BEST = "network/", "optimiser/", "best/"


class Checkpoints(Protocol):
    """Whoever keeps the checkpoints of a training."""

    def save(self, path: Path, epoch: int) -> None:
        """Keep the file of an epoch, from 1. It may be replaced or removed as soon as this returns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a training has come, without its tensors.

    Attributes:
        epochs_run: epochs trained.
        best_epoch: the best of them, from 1.
        best: its figures.
        pace: of `trainer.pace.Pace`.
        scaler: of the gradient scaler; None where there is none.
    """

    epochs_run: int
    best_epoch: int
    best: dict[str, float]
    pace: dict[str, float]
    scaler: dict[str, float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A training to go on with.

    Attributes:
        progress: how far it had come.
        network: every parameter and buffer by name.
        optimiser: its tensors as ``{name of the parameter: {"step": ..., "exp_avg": ..., ...}}``.
        best: parameters and buffers of the best epoch.
    """

    progress: Progress
    network: dict[str, torch.Tensor]
    optimiser: dict[str, dict[str, torch.Tensor]]
    best: dict[str, torch.Tensor]


def fingerprint_of(config: Mapping[str, Any], **data: int) -> str:
    """Return a hash of what a training is about: a checkpoint goes on only with the same recipe and the same labels.

    Args:
        config: the recipe, whole, JSON-ready.
        data: figures by which the labelled images can be told from others.
    """
    return hashlib.sha256(json.dumps([dict(config), data], sort_keys=True).encode()).hexdigest()


def write_checkpoint(
    path: Path,
    *,
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    best: Mapping[str, torch.Tensor] | None,
    progress: Progress,
    fingerprint: str,
) -> None:
    """Write a checkpoint, whole or not at all; an earlier file there is replaced.

    Args:
        path: where to.
        network: after the epoch.
        optimiser: of its parameters.
        best: weights of the best epoch; None when that is this one, so that they are not kept twice.
        progress: how far the training has come.
        fingerprint: from `fingerprint_of`.

    Raises:
        SafetensorError: the file could not be written, for want of disk space most often.
    """
    tensors = {_NETWORK + name: value for name, value in copy_weights(network).items()}
    for name, parameter in network.named_parameters():
        # A parameter that no gradient has reached yet has no state.
        for kind, value in optimiser.state.get(parameter, {}).items():
            tensors[f"{_OPTIMISER}{kind}/{name}"] = value.detach().cpu().contiguous()
    tensors |= {_BEST + name: value for name, value in (best or {}).items()}
    head = json.dumps({"format": _FORMAT, "fingerprint": fingerprint, "progress": asdict(progress)}, sort_keys=True)
    save_file(tensors, path, metadata={_HEAD: head, _HASH: _hash(head, tensors)})


def read_checkpoint(path: Path, *, fingerprint: str) -> Checkpoint:
    """Read a checkpoint that is whole and of this training.

    Args:
        path: a file of `write_checkpoint`.
        fingerprint: of the training that is to go on.

    Raises:
        CheckpointInvalid: the file is missing, damaged, of another form, or of another training.
    """
    try:
        with safe_open(path, framework="pt") as file:
            head = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in list(file.keys())}
    except (OSError, SafetensorError) as exc:
        raise CheckpointInvalid(f"The checkpoint {path.name} cannot be read: {exc}.") from exc
    if _HEAD not in head:
        raise CheckpointInvalid(f"{path.name} is no checkpoint of a training.")
    if head.get(_HASH) != _hash(head[_HEAD], tensors):
        raise CheckpointInvalid(f"The checkpoint {path.name} is damaged: its hash differs.")
    # From here on the head is what we once wrote.
    values = json.loads(head[_HEAD])
    if values["format"] != _FORMAT:
        raise CheckpointInvalid(f"The checkpoint {path.name} was written by another version of Defectoscope.")
    if values["fingerprint"] != fingerprint:
        raise CheckpointInvalid(f"The checkpoint {path.name} is of a training with another recipe or other labels.")
    progress = Progress(**{field.name: values["progress"][field.name] for field in fields(Progress)})
    network = _under(_NETWORK, tensors)
    optimiser: dict[str, dict[str, torch.Tensor]] = {}
    for address, value in _under(_OPTIMISER, tensors).items():
        kind, _, name = address.partition("/")
        optimiser.setdefault(name, {})[kind] = value
    return Checkpoint(
        progress=progress, network=network, optimiser=optimiser, best=_under(_BEST, tensors) or dict(network)
    )


def restore_network(network: nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
    """Give a network the weights of a checkpoint.

    Raises:
        CheckpointInvalid: they are of another network; the network may hold some of them.
    """
    try:
        network.load_state_dict(weights)
    except RuntimeError as exc:
        first = str(exc).partition("\n")[0]
        raise CheckpointInvalid(f"The checkpoint is of another network: {first}") from exc


def restore_optimiser(
    optimiser: torch.optim.Optimizer, network: nn.Module, states: Mapping[str, Mapping[str, torch.Tensor]]
) -> None:
    """Give an optimiser the state of a checkpoint, each tensor where and laid out in memory as its parameter is."""
    for name, parameter in network.named_parameters():
        state = optimiser.state[parameter] if name in states else {}
        for kind, value in states.get(name, {}).items():
            # Tensors laid out in another way than their parameter would take the optimiser off its fast path.
            like = parameter.detach() if value.shape == parameter.shape else value.to(parameter.device)
            state[kind] = torch.empty_like(like, dtype=value.dtype).copy_(value)


def _under(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _hash(head: str, tensors: Mapping[str, torch.Tensor]) -> str:
    found = hashlib.sha256(head.encode())
    for name in sorted(tensors):
        value = tensors[name]
        found.update(f"\n{name} {value.dtype} {tuple(value.shape)}\n".encode())
        found.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()
