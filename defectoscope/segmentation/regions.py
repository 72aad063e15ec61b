"""Splits a mask into defects: its connected regions, measured.

All measures are computed for all regions at once from the runs of defect pixels, so that neither fifty thousand specks
nor one region that fills the image is slow. This module does not decide what is a defect pixel; that has been done
before it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from defectoscope.segmentation.arrays import UInt8Array

#: Second moment of a unit square about its centre: a pixel is an area, not a point.
_PIXEL_MOMENT = 1 / 12


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


def find_defects(mask: UInt8Array, probabilities: UInt8Array, *, min_area_px: int) -> tuple[UInt8Array, list[Defect]]:
    """Find and measure the connected regions of a mask and drop the small ones.

    Args:
        mask: (H, W) uint8; anything but 0 is defect. It is not changed.
        probabilities: (H, W) uint8; 255 is a certain defect.
        min_area_px: regions with fewer pixels are dropped.

    Returns:
        The mask (H, W) uint8 of 0 and 255 without the dropped regions, and the defects, largest first. The areas of
        the defects add up to the defect pixels of that mask.
    """
    height, width = mask.shape
    kept = np.zeros((height, width), dtype=np.uint8)
    # Most masks are nearly empty: everything below looks only at the rectangle that holds the defect pixels.
    left, top, box_width, box_height = cv2.boundingRect(mask)
    if box_width == 0:
        return kept, []
    window = np.s_[top : top + box_height, left : left + box_width]
    # A frame of background, so that every run ends in its row and every neighbour exists.
    framed = _frame(mask[window])
    region_count, raw_regions = cv2.connectedComponents(framed, connectivity=8)
    regions: npt.NDArray[np.int32] = np.asarray(raw_regions, dtype=np.int32)  # (h + 2, w + 2), 0 is background
    runs = _find_runs(framed, regions)
    boxes = _measure_boxes(runs, region_count)
    is_kept = boxes.area >= max(min_area_px, 1)
    if not is_kept.any():
        return kept, []
    if not is_kept[1:].all():
        _clear(framed, runs, ~is_kept[runs.region])
    kept[window] = cv2.threshold(framed[1:-1, 1:-1], 0, 255, cv2.THRESH_BINARY)[1]

    measured = _measure_shapes(runs, boxes)
    perimeters = _measure_perimeters(framed, regions, region_count)
    highest, summed = _measure_probabilities(runs, _frame(probabilities[window]), region_count)
    first = np.zeros(region_count, dtype=np.int64)
    # The last assignment wins, so that going backwards leaves the first pixel of each region.
    first[runs.region[::-1]] = runs.bounds[::2][::-1]
    numbers = np.flatnonzero(is_kept)
    numbers = numbers[np.lexsort((first[numbers], -boxes.area[numbers]))]

    x0, y0 = boxes.x0[numbers] + left, boxes.y0[numbers] + top
    x1, y1 = boxes.x1[numbers] + left, boxes.y1[numbers] + top
    areas = boxes.area
    touches = (x0 == 0) | (y0 == 0) | (x1 == width) | (y1 == height)
    columns = zip(
        zip(x0.tolist(), y0.tolist(), x1.tolist(), y1.tolist(), strict=True),
        areas[numbers].tolist(),
        zip((measured.centre_x + left)[numbers].tolist(), (measured.centre_y + top)[numbers].tolist(), strict=True),
        measured.major_axis[numbers].tolist(),
        measured.minor_axis[numbers].tolist(),
        measured.orientation_deg[numbers].tolist(),
        perimeters[numbers].tolist(),
        (highest[numbers] / 255).tolist(),
        (summed[numbers] / areas[numbers] / 255).tolist(),
        touches.tolist(),
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


@dataclass(frozen=True, slots=True)
class _Runs:
    """The horizontal runs of defect pixels in a window, row by row; (K,) each unless said otherwise.

    A run lies in one region and its sums have closed forms, so that a large region costs its height and not its area.
    """

    bounds: npt.NDArray[np.int64]  # (2K,) first pixel and exclusive end of each run in the flat framed window
    region: npt.NDArray[np.int32]
    x: npt.NDArray[np.int64]  # of the first pixel, in the window
    y: npt.NDArray[np.int64]
    length: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Boxes:
    """Area and box of all regions by region number; (R,) int64 each, in pixels of the window, ends exclusive.

    Region 0, the background, has area 0.
    """

    area: npt.NDArray[np.int64]
    x0: npt.NDArray[np.int64]
    y0: npt.NDArray[np.int64]
    x1: npt.NDArray[np.int64]
    y1: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Shapes:
    """Measures of all regions by region number; (R,) float64 each, lengths in pixels of the window."""

    centre_x: npt.NDArray[np.float64]
    centre_y: npt.NDArray[np.float64]
    major_axis: npt.NDArray[np.float64]
    minor_axis: npt.NDArray[np.float64]
    orientation_deg: npt.NDArray[np.float64]


def _frame(window: UInt8Array) -> UInt8Array:
    return np.asarray(cv2.copyMakeBorder(window, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0), dtype=np.uint8)


def _find_runs(framed: UInt8Array, regions: npt.NDArray[np.int32]) -> _Runs:
    is_defect = framed.ravel() != 0
    bounds = np.flatnonzero(is_defect[1:] != is_defect[:-1]) + 1
    y, x = np.divmod(bounds[::2], framed.shape[1])
    return _Runs(
        bounds=bounds, region=regions.ravel()[bounds[::2]], x=x - 1, y=y - 1, length=bounds[1::2] - bounds[::2]
    )


def _measure_boxes(runs: _Runs, region_count: int) -> _Boxes:
    area = np.bincount(runs.region, weights=runs.length, minlength=region_count).astype(np.int64)
    far = np.iinfo(np.int64).max
    x0, y0 = np.full(region_count, far), np.full(region_count, far)
    x1, y1 = np.zeros(region_count, dtype=np.int64), np.zeros(region_count, dtype=np.int64)
    np.minimum.at(x0, runs.region, runs.x)
    np.minimum.at(y0, runs.region, runs.y)
    np.maximum.at(x1, runs.region, runs.x + runs.length)
    np.maximum.at(y1, runs.region, runs.y + 1)
    return _Boxes(area=area, x0=x0, y0=y0, x1=x1, y1=y1)


def _clear(framed: UInt8Array, runs: _Runs, which: npt.NDArray[np.bool_]) -> None:
    """Make background of some runs; regions below the least area are few pixels by their nature."""
    starts, lengths = runs.bounds[::2][which], runs.length[which]
    within = np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    framed.ravel()[np.repeat(starts, lengths) + within] = 0


def _measure_shapes(runs: _Runs, boxes: _Boxes) -> _Shapes:
    """Compute the centroids of all regions and the ellipses with the same second moments."""
    area = np.maximum(boxes.area, 1)
    # Coordinates count from the region's own box, so that no precision is lost in large images.
    x = (runs.x - boxes.x0[runs.region]).astype(np.float64)
    y = (runs.y - boxes.y0[runs.region]).astype(np.float64)
    n = runs.length.astype(np.float64)
    # Sums of x + k and of (x + k) ** 2 over k = 0 ... n - 1.
    sum_x = n * x + n * (n - 1) / 2
    sum_xx = n * x**2 + x * n * (n - 1) + (n - 1) * n * (2 * n - 1) / 6

    def mean(sums: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.asarray(np.bincount(runs.region, weights=sums, minlength=len(area)) / area, dtype=np.float64)

    mean_x, mean_y = mean(sum_x), mean(n * y)
    var_x = mean(sum_xx) - mean_x**2 + _PIXEL_MOMENT
    var_y = mean(n * y**2) - mean_y**2 + _PIXEL_MOMENT
    cov = mean(y * sum_x) - mean_x * mean_y
    # What is only rounding must not choose between -90 and 90 degrees, or give a square a direction.
    noise = 1e-9 * (var_x + var_y)
    cov = np.where(np.abs(cov) < noise, 0.0, cov)
    difference = np.where(np.abs(var_x - var_y) < noise, 0.0, var_x - var_y)
    # The eigenvalues of [[var_x, cov], [cov, var_y]]; the half axis of a uniform ellipse is twice their square root.
    middle = (var_x + var_y) / 2
    spread = np.hypot(difference / 2, cov)
    return _Shapes(
        centre_x=mean_x + boxes.x0,
        centre_y=mean_y + boxes.y0,
        major_axis=4 * np.sqrt(middle + spread),
        minor_axis=4 * np.sqrt(np.maximum(middle - spread, 0)),
        orientation_deg=np.degrees(np.arctan2(2 * cov, difference)) / 2,
    )


def _measure_probabilities(
    runs: _Runs, framed: UInt8Array, region_count: int
) -> tuple[UInt8Array, npt.NDArray[np.float64]]:
    """Give the largest level and the sum of the levels of each region, (R,) both; ``framed`` holds the levels."""
    flat = framed.ravel()
    highest = np.zeros(region_count, dtype=np.uint8)
    # Every second piece between the bounds is a run; the others are background.
    np.maximum.at(highest, runs.region, np.maximum.reduceat(flat, runs.bounds)[::2])
    # 32 bits hold a run of 16 million pixels of 255, and the wider type takes three times as long.
    sums = np.add.reduceat(flat, runs.bounds, dtype=np.uint32)[::2]
    return highest, np.asarray(np.bincount(runs.region, weights=sums, minlength=region_count), dtype=np.float64)


def _measure_perimeters(
    framed: UInt8Array, regions: npt.NDArray[np.int32], region_count: int
) -> npt.NDArray[np.float64]:
    """Count, for each region, the pairs of a defect pixel and a background neighbour in four directions.

    Each pair is one crossing of the boundary by a grid line. Crofton: length = 1/2 * integral over the directions in
    [0, pi) of the crossings; four directions stand for pi / 4 each, and diagonal lines lie 1 / sqrt(2) apart.
    """
    is_defect, region = framed.ravel() != 0, regions.ravel()
    row = framed.shape[1]
    length = np.zeros(region_count, dtype=np.float64)
    for step, spacing in ((1, 1.0), (row, 1.0), (row + 1, math.sqrt(0.5)), (row - 1, math.sqrt(0.5))):
        crossed = np.flatnonzero(is_defect[step:] != is_defect[:-step])
        # Of each pair one lies in a region that was kept; its other pixel is background, of region 0 or dropped.
        inside = np.where(is_defect[crossed], crossed, crossed + step)
        length += np.bincount(region[inside], minlength=region_count) * spacing
    return length * (math.pi / 8)
