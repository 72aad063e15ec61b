"""Brings arrays from one size to another; the one interpolation of the product. It knows no model and no policy."""

from __future__ import annotations

import cv2
import numpy as np

from defectoscope.segmentation.arrays import UInt8Array


def resize(array: UInt8Array, *, shape_hw: tuple[int, int]) -> UInt8Array:
    """Shrink by the mean over the covered area, then enlarge linearly; each axis takes the step it needs.

    Linear sampling alone would skip pixels when shrinking, and a scratch one pixel wide would come and go with its
    position. Where one axis shrinks and the other grows, OpenCV's area mode would not be an area mean, hence two steps.
    No value of the result is greater than the greatest of the array.

    Args:
        array: (H, W) or (H, W, 3) uint8, at least 1 x 1.
        shape_hw: height and width to bring it to.

    Returns:
        (h, w) or (h, w, 3) uint8, C-contiguous; the array itself where nothing is to be done.
    """
    height, width = shape_hw
    shrunk_hw = (min(height, array.shape[0]), min(width, array.shape[1]))
    if shrunk_hw != array.shape[:2]:
        array = np.asarray(cv2.resize(array, shrunk_hw[::-1], interpolation=cv2.INTER_AREA), dtype=np.uint8)
    if shape_hw != shrunk_hw:
        array = np.asarray(cv2.resize(array, (width, height), interpolation=cv2.INTER_LINEAR), dtype=np.uint8)
    return np.ascontiguousarray(array)
