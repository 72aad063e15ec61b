"""What this machine offers to training: cores, a device, a faster arithmetic. It decides nothing about the recipe."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import torch

from defectoscope.errors.api import InvalidRequest
from defectoscope.errors.engine import ProviderUnavailable

#: Number format of the arithmetic of a training; "off" is fp32.
Arithmetic = Literal["bf16", "fp16", "off"]

#: The first GPUs with tensor cores for fp16, and the first with bf16.
_TENSOR_CORES = (7, 0)
_BF16_CORES = (8, 0)
_CGROUP_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def available_cores() -> int:
    """Return how many cores this process may use: its affinity, cut to the quota of its container."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    if _CGROUP_QUOTA.is_file():
        quota, _, period = _CGROUP_QUOTA.read_text().strip().partition(" ")
        if quota.isdecimal() and period.isdecimal():
            cores = min(cores, -(-int(quota) // int(period)))
    return max(1, cores)


def choose_device(wanted: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """Return the device to train on.

    Raises:
        ProviderUnavailable: a GPU is demanded and there is none.
    """
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ProviderUnavailable("Training on a GPU is demanded, but torch finds no usable GPU on this machine.")
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")


def choose_arithmetic(wanted: Literal["auto", "bf16", "fp16", "off"], device: torch.device) -> Arithmetic:
    """Return the arithmetic to train in.

    Args:
        wanted: by the recipe; "auto" for the fastest that the hardware has and that needs no care.
        device: where to train.

    Raises:
        InvalidRequest: fp16 is demanded on a CPU.
    """
    if wanted == "fp16" and device.type != "cuda":
        raise InvalidRequest("autocast fp16 needs a GPU; on a CPU choose auto, bf16 or off.", autocast=wanted)
    if wanted != "auto":
        return wanted
    if gains_from_bf16(device):
        return "bf16"
    has_tensor_cores = device.type == "cuda" and torch.cuda.get_device_capability(device) >= _TENSOR_CORES
    return "fp16" if has_tensor_cores else "off"


def count_devices(
    wanted: int | Literal["auto"], device: torch.device, *, batch_size: int, train_count: int, val_count: int
) -> int:
    """Return among how many devices to share each batch.

    Args:
        wanted: by the recipe; "auto" for as many GPUs as there are, and for one process on a CPU.
        device: where to train. A CPU can be shared by several processes, which is slower and serves tests.
        batch_size: images in a step, over all devices.
        train_count: images to train on.
        val_count: images to validate on.

    Returns:
        The largest number up to the wanted one that leaves each device as many images of a batch, two at least, as
        every other, and each an image to validate on.

    Raises:
        ProviderUnavailable: more GPUs are demanded than there are.
    """
    found = torch.cuda.device_count() if device.type == "cuda" else 1
    if wanted != "auto" and device.type == "cuda" and wanted > found:
        raise ProviderUnavailable(
            f"Training on {wanted} GPUs is demanded, but torch finds {found}.", devices=wanted, found=found
        )
    at_most = min(found if wanted == "auto" else wanted, batch_size // 2, train_count // 2, val_count)
    return next(count for count in range(max(1, at_most), 0, -1) if batch_size % count == 0)


def gains_from_bf16(device: torch.device) -> bool:
    """Say whether bf16 arithmetic is in the hardware; emulated, it would be slower than fp32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= _BF16_CORES
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") or capabilities.get("bf16"))
