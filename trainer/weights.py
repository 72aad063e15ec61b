"""The weights of a whole network in a safetensors file that says which network it is; reading it can run no code."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from defectoscope.errors.training import EncoderWeightsInvalid
from trainer.config import TrainingConfig


def copy_weights(network: nn.Module) -> dict[str, torch.Tensor]:
    """Return every parameter and buffer on the CPU, in the plain order of memory that files have."""
    return {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}


def save_weights(weights: dict[str, torch.Tensor], path: Path, *, config: TrainingConfig) -> None:
    """Write weights, and in the file's head the architecture and encoder they are for; whole or not at all.

    Args:
        weights: from `copy_weights`.
        path: an earlier file there is replaced.
        config: recipe of the network.

    Raises:
        SafetensorError: the file could not be written.
    """
    save_file(weights, path, metadata={"architecture": config.architecture, "encoder": config.encoder})


def try_to_load(network: nn.Module, path: Path, *, config: TrainingConfig) -> str | None:
    """Load weights into a network, unless they are of another one.

    Args:
        network: left as it was when they do not fit.
        path: a file of `save_weights`, or of the same tensors without a head.
        config: recipe of the network.

    Returns:
        Why they do not fit, as the end of a sentence; None when they were loaded.

    Raises:
        EncoderWeightsInvalid: the file is missing or damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            head = file.metadata() or {}
        weights = load_file(path, device="cpu")
    except (OSError, SafetensorError) as exc:
        raise EncoderWeightsInvalid(f"{path.name} cannot be read as weights: {type(exc).__name__}.") from exc
    theirs = (head.get("architecture", config.architecture), head.get("encoder", config.encoder))
    if theirs != (config.architecture, config.encoder):
        wanted = f"{config.architecture} with {config.encoder}"
        return f"they are of {theirs[0]} with {theirs[1]}, and the recipe asks for {wanted}"
    ours = network.state_dict()
    if {name: value.shape for name, value in ours.items()} != {name: value.shape for name, value in weights.items()}:
        return "their tensors have other names or sizes than those of the recipe's network"
    network.load_state_dict(weights)
    return None
