"""What this machine offers to training: cores, a device, a faster arithmetic. It decides nothing about the recipe."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import torch

from defectoscope.errors import ProviderUnavailable

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


def gains_from_bf16(device: torch.device) -> bool:
    """Say whether bf16 arithmetic is in the hardware; emulated, it would be slower than fp32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") or capabilities.get("bf16"))
