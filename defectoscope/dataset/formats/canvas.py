"""Paints the regions of one image into one class mask, whatever format they came from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from defectoscope.dataset.formats.polygons import fill_polygon
from defectoscope.errors.images import InvalidLabel, LabelSizeMismatch
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
        #: (W, H): annotations come column by column, and most of them cover few columns of a large image.
        self._columns: UInt8Array = np.zeros((width, height), dtype=np.uint8)

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
        is_empty = True
        for points_xy in polygons:
            left, inside = fill_polygon(points_xy, shape_hw=self.shape_hw)
            is_empty = is_empty and not inside.any()
            _paint(self._columns[left : left + len(inside)], inside, ignored=ignored)
        self.empty_count += is_empty

    def add_spans(self, spans: npt.NDArray[np.int64], *, ignored: bool) -> None:
        """Paint the runs that `find_spans` gives, (K, 2)."""
        flat = self._columns.reshape(-1)
        for start, end in spans.tolist():
            _paint(flat[start:end], np.True_, ignored=ignored)
        self.empty_count += not len(spans)

    def add_region(self, region: npt.NDArray[np.bool_], *, ignored: bool) -> None:
        """Paint a region, (H, W) bool."""
        _paint(self._columns, region.T, ignored=ignored)
        self.empty_count += not region.any()

    def finish(self) -> UInt8Array:
        """Return the class mask: (H, W) uint8, 0 background, 1 defect, 255 ignored."""
        return np.ascontiguousarray(self._columns.T)


def _paint(pixels: UInt8Array, is_painted: npt.NDArray[np.bool_] | np.bool_, *, ignored: bool) -> None:
    """Paint a part of the class mask in place."""
    if ignored:
        pixels[is_painted & (pixels == 0)] = IGNORED
    else:
        pixels[is_painted] = 1
