"""Paints the regions of one image into one class mask, whatever format they came from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from defectoscope.dataset.formats.polygons import fill_polygon
from defectoscope.errors import InvalidLabel, LabelSizeMismatch
from defectoscope.segmentation import IGNORED, DecodeLimits, UInt8Array

_MOST_PIXELS = DecodeLimits().max_pixels


class Canvas:
    """A class mask in the making. Where a defect and an ignored region meet, the defect counts.

    Args:
        size_wh: of the upright image, in pixels.

    Raises:
        InvalidLabel: no image may have so many pixels.
    """

    def __init__(self, size_wh: tuple[int, int]) -> None:
        width, height = size_wh
        if width * height > _MOST_PIXELS:
            raise InvalidLabel(f"The label declares {width} x {height} pixels; at most {_MOST_PIXELS} are accepted.")
        self.shape_hw = (height, width)
        self.empty_count = 0
        self._class_mask: UInt8Array = np.zeros(self.shape_hw, dtype=np.uint8)

    def check_size(self, size_wh: tuple[int | None, int | None]) -> None:
        """Compare the size that a region was drawn on.

        Raises:
            LabelSizeMismatch: it is another one, or unknown.
        """
        height, width = self.shape_hw
        if size_wh != (width, height):
            raise LabelSizeMismatch(
                f"A region was drawn on {size_wh[0]} x {size_wh[1]} pixels; the image has {width} x {height}.",
                region_size_wh=list(size_wh),
                image_size_wh=[width, height],
            )

    def add_polygons(self, polygons: Sequence[Sequence[tuple[float, float]]], *, ignored: bool) -> None:
        """Paint the union of polygons.

        Raises:
            PolygonInvalid: one lies elsewhere.
        """
        region = np.zeros(self.shape_hw, dtype=np.bool_)
        for points_xy in polygons:
            fill_polygon(region, points_xy)
        self.add_region(region, ignored=ignored)

    def add_region(self, region: npt.NDArray[np.bool_], *, ignored: bool) -> None:
        """Paint a region, (H, W) bool."""
        if not region.any():
            self.empty_count += 1
        elif ignored:
            self._class_mask[region & (self._class_mask == 0)] = IGNORED
        else:
            self._class_mask[region] = 1

    def finish(self) -> UInt8Array:
        """Return the class mask: (H, W) uint8, 0 background, 1 defect, 255 ignored."""
        return self._class_mask
