"""From probabilities at an image's own resolution to its mask and defects; which pixels are defect is decided here."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from defectoscope.errors.api import InvalidRequest
from defectoscope.segmentation.arrays import UInt8Array
from defectoscope.segmentation.contract import ModelContract
from defectoscope.segmentation.regions import Defect, find_defects


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentationParams:
    """What may be chosen per job.

    Attributes:
        threshold: in (0, 1]; a pixel is defect when its probability is at least this.
        min_area_px: smaller regions are dropped, in pixels of the image at its own resolution.
    """

    threshold: float
    min_area_px: int

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 1:
            raise InvalidRequest("The threshold must be above 0 and at most 1.", threshold=self.threshold)
        if self.min_area_px < 0:
            raise InvalidRequest("The minimum area must not be negative.", min_area_px=self.min_area_px)

    @classmethod
    def from_contract(cls, contract: ModelContract) -> SegmentationParams:
        """Take the values the model was released with."""
        return cls(threshold=contract.threshold, min_area_px=contract.min_area_px)


@dataclass(frozen=True, slots=True, kw_only=True)
class Segmentation:
    """What was found in one image.

    Attributes:
        mask: (H, W) uint8, 0 background and 255 defect, at the image's own resolution.
        defects: its connected regions, largest first.
        defect_px: number of defect pixels, the sum of the defects' areas.
    """

    mask: UInt8Array
    defects: list[Defect]
    defect_px: int


def find_lowest_level(threshold: float) -> int:
    """Give the smallest uint8 level that counts as defect: the first whose level / 255 reaches the threshold.

    This is ceil(threshold * 255), free of the rounding that would make a threshold of k / 255 miss the level k.

    Args:
        threshold: in (0, 1].

    Returns:
        1 to 255.
    """
    return int(np.argmax(np.arange(256) / 255 >= threshold))


def apply_threshold(levels: UInt8Array, *, params: SegmentationParams) -> Segmentation:
    """Turn probabilities into a mask and its defects.

    Args:
        levels: (H, W) uint8 at the image's own resolution; 255 is a certain defect.
        params: threshold and minimum area.
    """
    _, raw_mask = cv2.threshold(levels, find_lowest_level(params.threshold) - 1, 255, cv2.THRESH_BINARY)
    mask, defects = find_defects(
        np.asarray(raw_mask, dtype=np.uint8), levels, min_area_px=params.min_area_px, in_place=True
    )
    return Segmentation(mask=mask, defects=defects, defect_px=sum(defect.area_px for defect in defects))


def find_nothing(shape_hw: tuple[int, int]) -> Segmentation:
    """Give the segmentation of an image without a defect."""
    return Segmentation(mask=np.zeros(shape_hw, dtype=np.uint8), defects=[], defect_px=0)
