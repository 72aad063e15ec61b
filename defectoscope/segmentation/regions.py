"""Splits a mask into defects: its connected regions, measured.

This module does not decide what is a defect pixel; that has been done before it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from defectoscope.segmentation.arrays import UInt8Array
from defectoscope.segmentation.measures import measure_regions
from defectoscope.segmentation.runs import Runs, connect, find_runs


@dataclass(frozen=True, slots=True, kw_only=True)
class Defect:
    """One connected region of a mask (8-connectivity).

    Attributes:
        number: 1, 2, ... within the image, largest area first; equal areas in the order of their first pixel, row by
            row from the top left.
        box_xyxy: left, top, right, bottom; the right and bottom are exclusive.
        area_px: number of pixels.
        centroid_xy: mean of the pixel centres; the centre of the top left pixel is (0, 0).
        major_axis_px: full length of the major axis of the ellipse with the same second moments, pixels being unit
            squares (as MATLAB's regionprops does), so that a single pixel has 1.15 and not 0.
        minor_axis_px: the same of the minor axis.
        orientation_deg: of the major axis against +x, in (-90, 90], y pointing down: positive is clockwise on the
            screen. 0 for a region without a direction.
        perimeter_px: Crofton's formula over four directions (as scikit-image's perimeter_crofton): half the mean over
            directions of the number of times that lines one pixel apart cross the boundary. Holes count; beyond the
            image is background. For a straight edge it is within 6 percent of the true length.
        max_probability: largest probability in the region, 0 to 1.
        mean_probability: mean probability of the region, 0 to 1.
        touches_border: whether a pixel lies on the border of the image.
    """

    number: int
    box_xyxy: tuple[int, int, int, int]
    area_px: int
    centroid_xy: tuple[float, float]
    major_axis_px: float
    minor_axis_px: float
    orientation_deg: float
    perimeter_px: float
    max_probability: float
    mean_probability: float
    touches_border: bool


def find_defects(
    mask: UInt8Array, probabilities: UInt8Array, *, min_area_px: int, in_place: bool = False
) -> tuple[UInt8Array, list[Defect]]:
    """Find and measure the connected regions of a mask and drop the small ones.

    Beside the masks it takes two bytes for each pixel at most and some 120 for each horizontal run of defect pixels:
    little but for a mask of noise.

    Args:
        mask: (H, W) uint8; anything but 0 is defect.
        probabilities: (H, W) uint8; 255 is a certain defect.
        min_area_px: regions with fewer pixels are dropped.
        in_place: whether the mask, which then holds 0 and 255 only, itself becomes the one that is returned.

    Returns:
        The mask (H, W) uint8 of 0 and 255 without the dropped regions, and the defects, largest first. The areas of
        the defects add up to the defect pixels of that mask.
    """
    kept = mask if in_place else np.where(mask, np.uint8(255), np.uint8(0))
    runs = find_runs(mask, probabilities)
    if not len(runs.y):
        return kept, []
    regions = connect(runs, width=mask.shape[1])
    found = measure_regions(runs, regions)
    is_large = found.area >= min_area_px
    if not is_large.all():
        _clear(kept, runs, ~is_large[regions.of_run])
    # Regions come in the order of their first pixels, which decides between equal areas.
    large = np.flatnonzero(is_large)
    order = large[np.argsort(-found.area[large], kind="stable")]
    x0, y0, x1, y1 = found.box_xyxy.T
    height, width = mask.shape
    touches = (x0 == 0) | (y0 == 0) | (x1 == width) | (y1 == height)
    columns = zip(
        map(tuple, found.box_xyxy[order].tolist()),
        found.area[order].tolist(),
        map(tuple, found.centroid_xy[order].tolist()),
        found.major_axis[order].tolist(),
        found.minor_axis[order].tolist(),
        found.orientation_deg[order].tolist(),
        found.perimeter[order].tolist(),
        (found.highest[order] / 255).tolist(),
        (found.summed[order] / found.area[order] / 255).tolist(),
        touches[order].tolist(),
        strict=True,
    )
    defects = [
        Defect(
            number=number,
            box_xyxy=box_xyxy,
            area_px=area_px,
            centroid_xy=centroid_xy,
            major_axis_px=major_axis_px,
            minor_axis_px=minor_axis_px,
            orientation_deg=orientation_deg,
            perimeter_px=perimeter_px,
            max_probability=max_probability,
            mean_probability=mean_probability,
            touches_border=touches_border,
        )
        for number, (
            box_xyxy,
            area_px,
            centroid_xy,
            major_axis_px,
            minor_axis_px,
            orientation_deg,
            perimeter_px,
            max_probability,
            mean_probability,
            touches_border,
        ) in enumerate(columns, start=1)
    ]
    return kept, defects


def _clear(mask: UInt8Array, runs: Runs, which: npt.NDArray[np.bool_]) -> None:
    """Make background of some runs; regions below the least area are few pixels by their nature."""
    lengths = runs.length[which]
    within = np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    mask[np.repeat(runs.y[which], lengths), np.repeat(runs.x[which], lengths) + within] = 0
