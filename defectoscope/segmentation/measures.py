"""Measures the connected regions of a window of a mask.

All measures are computed for all regions at once from the runs of defect pixels, so that neither fifty thousand specks
nor one region that fills the image is slow.
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


@dataclass(frozen=True, slots=True)
class Measures:
    """The regions of one window that were kept, in pixels of the image; (N,) each unless said otherwise."""

    box_xyxy: npt.NDArray[np.int64]  # (N, 4)
    area: npt.NDArray[np.int64]
    first_x: npt.NDArray[np.int64]  # of the first pixel, row by row
    first_y: npt.NDArray[np.int64]
    centroid_xy: npt.NDArray[np.float64]  # (N, 2)
    major_axis: npt.NDArray[np.float64]
    minor_axis: npt.NDArray[np.float64]
    orientation_deg: npt.NDArray[np.float64]
    perimeter: npt.NDArray[np.float64]
    highest: UInt8Array
    summed: npt.NDArray[np.float64]


def measure_window(
    mask: UInt8Array, probabilities: UInt8Array, kept: UInt8Array, *, origin_xy: tuple[int, int], min_area_px: int
) -> Measures | None:
    """Measure the regions of one window.

    Args:
        mask: (h, w) uint8; anything but 0 is defect. Beyond it is background.
        probabilities: (h, w) uint8; 255 is a certain defect.
        kept: (h, w) uint8 of zeros; the pixels of regions that are large enough become 255.
        origin_xy: where in the image the window begins.
        min_area_px: regions with fewer pixels are dropped.

    Returns:
        The measures of what was kept, or None where nothing was.
    """
    # A frame of background, so that every run ends in its row and every neighbour exists.
    framed = _frame(mask)
    region_count, raw_regions = cv2.connectedComponents(framed, connectivity=8)
    regions: npt.NDArray[np.int32] = np.asarray(raw_regions, dtype=np.int32)  # (h + 2, w + 2), 0 is background
    runs = _find_runs(framed, regions, origin_xy=origin_xy)
    boxes = _measure_boxes(runs, region_count)
    is_kept = boxes.area >= max(min_area_px, 1)
    if not is_kept.any():
        return None
    if not is_kept[1:].all():
        _clear(framed, runs, ~is_kept[runs.region])
    kept[:] = cv2.threshold(framed[1:-1, 1:-1], 0, 255, cv2.THRESH_BINARY)[1]

    shapes = _measure_shapes(runs, boxes)
    highest, summed = _measure_probabilities(runs, _frame(probabilities), region_count)
    first = np.zeros(region_count, dtype=np.int64)
    # The last assignment wins, so that going backwards leaves the first run of each region.
    first[runs.region[::-1]] = np.arange(len(runs.region))[::-1]
    return Measures(
        box_xyxy=np.stack([boxes.x0, boxes.y0, boxes.x1, boxes.y1], axis=1)[is_kept],
        area=boxes.area[is_kept],
        first_x=runs.x[first][is_kept],
        first_y=runs.y[first][is_kept],
        centroid_xy=np.stack([shapes.centre_x, shapes.centre_y], axis=1)[is_kept],
        major_axis=shapes.major_axis[is_kept],
        minor_axis=shapes.minor_axis[is_kept],
        orientation_deg=shapes.orientation_deg[is_kept],
        perimeter=_measure_perimeters(framed, regions, region_count)[is_kept],
        highest=highest[is_kept],
        summed=summed[is_kept],
    )


@dataclass(frozen=True, slots=True)
class _Runs:
    """The horizontal runs of defect pixels in a window, row by row; (K,) each unless said otherwise.

    A run lies in one region and its sums have closed forms, so that a large region costs its height and not its area.
    """

    bounds: npt.NDArray[np.int64]  # (2K,) first pixel and exclusive end of each run in the flat framed window
    region: npt.NDArray[np.int32]
    x: npt.NDArray[np.int64]  # of the first pixel, in the image
    y: npt.NDArray[np.int64]
    length: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Boxes:
    """Area and box of all regions by region number; (R,) int64 each, in pixels of the image, ends exclusive.

    Region 0, the background, has area 0.
    """

    area: npt.NDArray[np.int64]
    x0: npt.NDArray[np.int64]
    y0: npt.NDArray[np.int64]
    x1: npt.NDArray[np.int64]
    y1: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Shapes:
    """Measures of all regions by region number; (R,) float64 each, in pixels of the image."""

    centre_x: npt.NDArray[np.float64]
    centre_y: npt.NDArray[np.float64]
    major_axis: npt.NDArray[np.float64]
    minor_axis: npt.NDArray[np.float64]
    orientation_deg: npt.NDArray[np.float64]


def _frame(window: UInt8Array) -> UInt8Array:
    return np.asarray(cv2.copyMakeBorder(window, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0), dtype=np.uint8)


def _find_runs(framed: UInt8Array, regions: npt.NDArray[np.int32], *, origin_xy: tuple[int, int]) -> _Runs:
    is_defect = framed.ravel() != 0
    bounds = np.flatnonzero(is_defect[1:] != is_defect[:-1]) + 1
    y, x = np.divmod(bounds[::2], framed.shape[1])
    return _Runs(
        bounds=bounds,
        region=regions.ravel()[bounds[::2]],
        x=x - 1 + origin_xy[0],
        y=y - 1 + origin_xy[1],
        length=bounds[1::2] - bounds[::2],
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
