"""What training minimises: cross-entropy, alone or with the Dice loss; ignored pixels weigh nothing in either."""

from __future__ import annotations

from typing import Literal

import torch
from torch.nn import functional

from trainer.arrays import IGNORED


def segmentation_loss(
    logits: torch.Tensor, class_mask: torch.Tensor, *, kind: Literal["cross_entropy", "cross_entropy+dice"]
) -> torch.Tensor:
    """Return the loss of a batch.

    Args:
        logits: (N, 2, h, w); computed on in float32, whatever they come in.
        class_mask: (N, h, w) integers, 0 background, 1 defect, 255 ignored.
        kind: what to minimise.

    Returns:
        A scalar; 0 where every pixel is ignored.
    """
    logits, target = logits.float(), class_mask.long()
    counted = target != IGNORED
    summed = functional.cross_entropy(logits, target, ignore_index=IGNORED, reduction="sum")
    loss = summed / counted.sum().clamp(min=1)
    if kind == "cross_entropy+dice":
        loss = loss + dice_loss(logits.softmax(dim=1)[:, 1], (target == 1).float(), counted.float())
    return loss


def dice_loss(probabilities: torch.Tensor, target: torch.Tensor, counted: torch.Tensor) -> torch.Tensor:
    """Return 1 minus the soft Dice coefficient of the whole batch (Milletari 2016).

    Pooled over the batch, because an image without defects has no Dice of its own to speak of.

    Args:
        probabilities: (N, h, w) in [0, 1], of the defect.
        target: (N, h, w), 1 where there is a defect.
        counted: (N, h, w), 0 where a pixel is ignored.
    """
    overlap = (probabilities * target * counted).sum()
    total = ((probabilities + target) * counted).sum()
    # The added pixel keeps the loss defined, and 0, where nothing is there and nothing is claimed.
    return 1 - (2 * overlap + 1) / (total + 1)
