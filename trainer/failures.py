"""Gives names to what a machine can do to a training: too little memory, a full disk. Nothing else is caught here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from safetensors import SafetensorError

from defectoscope.errors.storage import DiskFull
from defectoscope.errors.training import TrainingFailed
from defectoscope.storage import NO_ROOM


@contextmanager
def named_failures() -> Iterator[None]:
    """Translate failures of the machine.

    Raises:
        DiskFull: a file could not be written because nothing is left of the disk or of its quota.
        TrainingFailed: the GPU's memory is too small, or a file could not be read or written.
    """
    try:
        yield
    except torch.OutOfMemoryError as exc:
        raise TrainingFailed(
            "The GPU has too little memory for this recipe; a smaller batch or input size helps."
        ) from exc
    except (OSError, SafetensorError) as exc:
        if is_disk_full(exc):
            raise DiskFull("The disk of the trainer's work directory is full; free some of it.") from exc
        reason = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc)
        raise TrainingFailed(f"A file of the training could not be read or written: {reason}.") from exc


def is_disk_full(failure: OSError | SafetensorError) -> bool:
    """Say whether a file could not be written for want of room; safetensors tells the number in its sentence only."""
    if isinstance(failure, OSError):
        return failure.errno in NO_ROOM
    return any(f"(os error {number})" in str(failure) for number in NO_ROOM)
