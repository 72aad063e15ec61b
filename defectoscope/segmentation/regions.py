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

#: Marks the four neighbours along an axis with 1 and the four across a corner with 16, so that one filter counts both.
_NEIGHBOURS = np.array([[16, 1, 16], [1, 0, 1], [16, 1, 16]], dtype=np.float32)

#: What that filter gives inside a region, where no neighbour is background.
_ALL_NEIGHBOURS = 4 * 1 + 4 * 16

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
    region_count, raw_regions, raw_stats, _ = cv2.connectedComponentsWithStats(mask[window], connectivity=8)
    regions: npt.NDArray[np.int32] = np.asarray(raw_regions, dtype=np.int32)  # (h, w), 0 is background
    stats: npt.NDArray[np.int32] = np.asarray(raw_stats, dtype=np.int32)  # (R, 5)
    areas = stats[:, cv2.CC_STAT_AREA].astype(np.int64)
    areas[0] = 0
    is_kept = areas >= max(min_area_px, 1)
    if not is_kept.any():
        return kept, []
    kept[window] = np.where(is_kept, np.uint8(255), np.uint8(0))[regions]

    runs = _find_runs(kept[window], regions)
    measured = _measure_shapes(runs, stats, areas)
    perimeters = _measure_perimeters(kept[window], regions, region_count)
    highest, summed = _measure_probabilities(runs, probabilities[window], region_count)
    first = np.zeros(region_count, dtype=np.int64)
    # The last assignment wins, so that going backwards leaves the first pixel of each region.
    first[runs.region[::-1]] = runs.bounds[::2][::-1]
    numbers = np.flatnonzero(is_kept)
    numbers = numbers[np.lexsort((first[numbers], -areas[numbers]))]

    x0 = stats[numbers, cv2.CC_STAT_LEFT].astype(np.int64) + left
    y0 = stats[numbers, cv2.CC_STAT_TOP].astype(np.int64) + top
    x1 = x0 + stats[numbers, cv2.CC_STAT_WIDTH]
    y1 = y0 + stats[numbers, cv2.CC_STAT_HEIGHT]
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

    bounds: npt.NDArray[np.int64]  # (2K,) start and exclusive end of each run in a flat window one column wider
    region: npt.NDArray[np.int32]
    x: npt.NDArray[np.int64]  # of the first pixel
    y: npt.NDArray[np.int64]
    length: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Shapes:
    """Measures of all regions by region number; (R,) float64 each, lengths in pixels."""

    centre_x: npt.NDArray[np.float64]
    centre_y: npt.NDArray[np.float64]
    major_axis: npt.NDArray[np.float64]
    minor_axis: npt.NDArray[np.float64]
    orientation_deg: npt.NDArray[np.float64]


def _find_runs(kept: UInt8Array, regions: npt.NDArray[np.int32]) -> _Runs:
    # The column of background behind each row keeps a run from going on in the next row.
    flat = np.pad(kept, ((0, 0), (0, 1))).ravel()
    bounds = np.flatnonzero(np.diff(flat, prepend=np.uint8(0)))
    y, x = np.divmod(bounds[::2], kept.shape[1] + 1)
    return _Runs(bounds=bounds, region=regions[y, x], x=x, y=y, length=bounds[1::2] - bounds[::2])


def _measure_shapes(runs: _Runs, stats: npt.NDArray[np.int32], areas: npt.NDArray[np.int64]) -> _Shapes:
    """Compute the centroids of all regions and the ellipses with the same second moments."""
    area = np.maximum(areas, 1)
    # Coordinates count from the region's own box, so that no precision is lost in large images.
    x = (runs.x - stats[runs.region, cv2.CC_STAT_LEFT]).astype(np.float64)
    y = (runs.y - stats[runs.region, cv2.CC_STAT_TOP]).astype(np.float64)
    n = runs.length.astype(np.float64)
    # Sums of x + k and of (x + k) ** 2 over k = 0 ... n - 1.
    sum_x = n * x + n * (n - 1) / 2
    sum_xx = n * x**2 + x * n * (n - 1) + (n - 1) * n * (2 * n - 1) / 6

    def mean(sums: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.asarray(np.bincount(runs.region, weights=sums, minlength=len(areas)) / area, dtype=np.float64)

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
        centre_x=mean_x + stats[:, cv2.CC_STAT_LEFT],
        centre_y=mean_y + stats[:, cv2.CC_STAT_TOP],
        major_axis=4 * np.sqrt(middle + spread),
        minor_axis=4 * np.sqrt(np.maximum(middle - spread, 0)),
        orientation_deg=np.degrees(np.arctan2(2 * cov, difference)) / 2,
    )


def _measure_probabilities(
    runs: _Runs, probabilities: UInt8Array, region_count: int
) -> tuple[UInt8Array, npt.NDArray[np.float64]]:
    """Give the largest level and the sum of the levels of each region, (R,) both."""
    flat = np.pad(probabilities, ((0, 0), (0, 1))).ravel()
    highest = np.zeros(region_count, dtype=np.uint8)
    # Every second piece between the bounds is a run; the others are background.
    np.maximum.at(highest, runs.region, np.maximum.reduceat(flat, runs.bounds)[::2])
    sums = np.add.reduceat(flat, runs.bounds, dtype=np.int64)[::2]
    return highest, np.asarray(np.bincount(runs.region, weights=sums, minlength=region_count), dtype=np.float64)


def _measure_perimeters(kept: UInt8Array, regions: npt.NDArray[np.int32], region_count: int) -> npt.NDArray[np.float64]:
    """Count, for each region, the pairs of a defect pixel and a background neighbour in four directions.

    Each pair is one crossing of the boundary by a grid line. Crofton: length = 1/2 * integral over the directions in
    [0, pi) of the crossings; four directions stand for pi / 4 each, and diagonal lines lie 1 / sqrt(2) apart.
    """
    inside = np.minimum(kept, 1)
    neighbours = np.asarray(
        cv2.filter2D(inside, cv2.CV_8U, _NEIGHBOURS, borderType=cv2.BORDER_CONSTANT), dtype=np.uint8
    )
    edge = np.flatnonzero((inside != 0) & (neighbours != _ALL_NEIGHBOURS))
    counts = neighbours.ravel()[edge]
    axis_crossings = 4 - (counts & 15)
    corner_crossings = 4 - (counts >> 4)
    weights = (axis_crossings + corner_crossings / math.sqrt(2)) * (math.pi / 8)
    region = regions.ravel()[edge]
    return np.asarray(np.bincount(region, weights=weights, minlength=region_count), dtype=np.float64)
