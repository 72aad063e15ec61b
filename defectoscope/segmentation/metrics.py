"""Counts pixels and derives scores from the counts: statistics first, scores second.

Counts are stored; every score and every aggregate follows from them. One convention holds for all scores: where
nothing was there and nothing was claimed, the score is 1.0. Where only one of the two is empty, it is 0.0, also where
the formula would divide by zero (the precision of a model that claims nothing although something is there).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from defectoscope.errors.images import InvalidLabel, LabelSizeMismatch
from defectoscope.segmentation.arrays import UInt8Array

#: Class of pixels that do not count in a class mask.
IGNORED = 255


@dataclass(frozen=True, slots=True)
class PixelCounts:
    """Pixels of one or more images by prediction and truth; ignored pixels are in none of them.

    Attributes:
        tp: defect, and predicted as defect.
        fp: background, predicted as defect.
        fn: defect, predicted as background.
        tn: background, and predicted as background.
    """

    tp: int
    fp: int
    fn: int
    tn: int

    def __add__(self, other: PixelCounts) -> PixelCounts:
        return PixelCounts(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn, self.tn + other.tn)

    @property
    def iou_defect(self) -> float:
        """Intersection over union (Jaccard 1912) of the defect class: tp / (tp + fp + fn)."""
        return self._score(self.tp, self.tp + self.fp + self.fn)

    @property
    def iou_background(self) -> float:
        """Intersection over union of the background class: tn / (tn + fp + fn); 1.0 where no background is involved."""
        union = self.tn + self.fp + self.fn
        return self.tn / union if union else 1.0

    @property
    def iou_mean(self) -> float:
        """Mean of the two classes' intersection over union (PASCAL VOC, Everingham 2010)."""
        return (self.iou_defect + self.iou_background) / 2

    @property
    def dice(self) -> float:
        """Dice coefficient (Dice 1945), the F1 score of the defect class: 2 tp / (2 tp + fp + fn)."""
        return self._score(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    @property
    def precision(self) -> float:
        """Share of the claimed defect pixels that are defect: tp / (tp + fp)."""
        return self._score(self.tp, self.tp + self.fp)

    @property
    def recall(self) -> float:
        """Share of the defect pixels that were found: tp / (tp + fn)."""
        return self._score(self.tp, self.tp + self.fn)

    def _score(self, part: int, whole: int) -> float:
        if whole:
            return part / whole
        return 1.0 if self.tp + self.fp + self.fn == 0 else 0.0


def count_pixels(mask: UInt8Array, class_mask: UInt8Array) -> PixelCounts:
    """Compare a predicted mask with the truth, pixel by pixel.

    Args:
        mask: (H, W) uint8, 0 background and 255 defect.
        class_mask: (H, W) uint8, 0 background, 1 defect, 255 ignored.

    Returns:
        The counts; they add up to the pixels that are not ignored.

    Raises:
        LabelSizeMismatch: the two differ in size.
        InvalidLabel: the class mask holds another value.
    """
    if mask.shape != class_mask.shape:
        raise LabelSizeMismatch(
            f"The label is {class_mask.shape[1]} x {class_mask.shape[0]} pixels and the mask "
            f"{mask.shape[1]} x {mask.shape[0]}.",
            label_shape_hw=list(class_mask.shape),
            mask_shape_hw=list(mask.shape),
        )
    claimed = mask != 0
    is_defect = class_mask == 1
    is_background = class_mask == 0
    positives = int(np.count_nonzero(is_defect))
    negatives = int(np.count_nonzero(is_background))
    if positives + negatives + int(np.count_nonzero(class_mask == IGNORED)) != class_mask.size:
        raise InvalidLabel("The class mask holds values other than 0, 1 and 255.")
    tp = int(np.count_nonzero(claimed & is_defect))
    fp = int(np.count_nonzero(claimed & is_background))
    return PixelCounts(tp, fp, positives - tp, negatives - fp)


def pooled(counts: Iterable[PixelCounts]) -> PixelCounts:
    """Add the counts of all images, so that every pixel weighs the same; no images give zero counts."""
    return sum(counts, start=PixelCounts(0, 0, 0, 0))


def per_image_mean(counts: Iterable[PixelCounts], score: Callable[[PixelCounts], float]) -> float | None:
    """Average a score over images, so that every image weighs the same.

    Args:
        counts: one for each image.
        score: such as ``lambda counts: counts.iou_defect``.

    Returns:
        The mean, or None where there are no images.
    """
    scores = [score(count) for count in counts]
    return sum(scores) / len(scores) if scores else None
