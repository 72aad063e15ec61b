"""Gives names to what a machine can do to a training: too little memory, a full disk. Nothing else is caught here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from safetensors import SafetensorError

from defectoscope.errors import TrainingFailed


@contextmanager
def named_failures() -> Iterator[None]:
    """Translate failures of the machine.

    Raises:
        TrainingFailed: the GPU's memory is too small, or a file could not be read or written.
    """
    try:
        yield
    except torch.OutOfMemoryError as exc:
        raise TrainingFailed(
            "The GPU has too little memory for this recipe; a smaller batch or input size helps."
        ) from exc
    except (OSError, SafetensorError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc)
        raise TrainingFailed(f"A file of the training could not be read or written: {reason}.") from exc
