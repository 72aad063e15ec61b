"""What training minimises: cross-entropy or focal loss, alone or with the Dice loss; ignored pixels weigh nothing."""

from __future__ import annotations

from typing import Literal

import torch
from torch.nn import functional

from defectoscope.segmentation import IGNORED

LossKind = Literal["cross_entropy", "cross_entropy+dice", "focal", "focal+dice"]

#: Exponent of the focal loss (Lin 2017): how little a pixel counts that is already right.
_FOCUS = 2.0
#: No class weighs more than this many times the other. Where one pixel in a thousand shows a defect, weighing by the
#: full inverse would make a false claim cost nothing.
_WEIGHT_RATIO_BOUND = 20.0


def segmentation_loss(
    logits: torch.Tensor, class_mask: torch.Tensor, *, kind: LossKind, class_weights: torch.Tensor | None = None
) -> torch.Tensor:
    """Return the loss of a batch.

    Args:
        logits: (N, 2, h, w); computed on in float32, whatever they come in.
        class_mask: (N, h, w) integers, 0 background, 1 defect, 255 ignored.
        kind: what to minimise.
        class_weights: (2,) float32, of background and defect, where the logits are; None to weigh pixels alike. The
            Dice loss takes no weights.

    Returns:
        A scalar; 0 where every pixel is ignored.
    """
    name, _, with_dice = kind.partition("+")
    logits, target = logits.float(), class_mask.long()
    counted = target != IGNORED
    costs = functional.cross_entropy(logits, target, ignore_index=IGNORED, reduction="none")  # (N, h, w)
    weights = counted.float()
    if class_weights is not None:
        # Of two classes, a choice is cheaper than an index into the weights.
        weights = weights * torch.where(target == 1, class_weights[1], class_weights[0])
    if name == "focal":
        # The cost is -log(p) of the true class.
        costs = costs * (1 - torch.exp(-costs)) ** _FOCUS
    loss = (costs * weights).sum() / weights.sum().clamp(min=1e-6)
    if with_dice:
        loss = loss + dice_loss(logits.softmax(dim=1)[:, 1], (target == 1).float(), counted.float())
    return loss


def balanced_weights(*, background_px: int, defect_px: int) -> tuple[float, float]:
    """Return weights by which both classes count alike in the loss, within a bound.

    Args:
        background_px: pixels of the class in the training labels.
        defect_px: likewise.

    Returns:
        Those of background and defect, each the inverse of the class's share but none more than 20 times the other;
        scaled so that the pixels of the training labels weigh 1 on average.
    """
    rarity = max(background_px, 1) / max(defect_px, 1)
    ratio = min(max(rarity, 1 / _WEIGHT_RATIO_BOUND), _WEIGHT_RATIO_BOUND)
    unit = (background_px + defect_px) / max(background_px + ratio * defect_px, 1)
    return unit, unit * ratio


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
