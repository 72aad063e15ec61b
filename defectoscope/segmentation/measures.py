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
from defectoscope.segmentation.bands import BAND_PX, Labelled, Runs, label_regions

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
    mask: UInt8Array,
    probabilities: UInt8Array,
    kept: UInt8Array,
    *,
    origin_xy: tuple[int, int],
    min_area_px: int,
    band_px: int = BAND_PX,
) -> Measures | None:
    """Measure the regions of one window.

    Args:
        mask: (h, w) uint8; anything but 0 is defect. Beyond it is background.
        probabilities: (h, w) uint8; 255 is a certain defect.
        kept: (h, w) uint8; the pixels of regions that are large enough become 255, all others 0. It may be the mask.
        origin_xy: where in the image the window begins.
        min_area_px: regions with fewer pixels are dropped.
        band_px: see `defectoscope.segmentation.bands.label_regions`.

    Returns:
        The measures of what was kept, or None where nothing was.
    """
    labelled = label_regions(mask, probabilities, origin_xy=origin_xy, band_px=band_px)
    runs, region_count = labelled.runs, labelled.region_count
    boxes = _measure_boxes(runs, region_count)
    is_kept = boxes.area >= max(min_area_px, 1)
    if not is_kept.any():
        kept[:] = 0
        return None
    rows = max(1, band_px // mask.shape[1])
    for top in range(0, len(mask), rows):
        kept[top : top + rows] = cv2.threshold(mask[top : top + rows], 0, 255, cv2.THRESH_BINARY)[1]
    if not is_kept.all():
        _clear(kept, runs, ~is_kept[runs.region], origin_xy=origin_xy)

    shapes = _measure_shapes(runs, boxes)
    highest = np.zeros(region_count, dtype=np.uint8)
    np.maximum.at(highest, runs.region, runs.highest)
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
        perimeter=_measure_perimeters(labelled)[is_kept],
        highest=highest[is_kept],
        summed=np.asarray(
            np.bincount(runs.region, weights=runs.summed, minlength=region_count)[is_kept], dtype=np.float64
        ),
    )


@dataclass(frozen=True, slots=True)
class _Boxes:
    """Area and box of all regions by region number; (R,) int64 each, in pixels of the image, ends exclusive."""

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


def _measure_boxes(runs: Runs, region_count: int) -> _Boxes:
    area = np.bincount(runs.region, weights=runs.length, minlength=region_count).astype(np.int64)
    far = np.iinfo(np.int64).max
    x0, y0 = np.full(region_count, far), np.full(region_count, far)
    x1, y1 = np.zeros(region_count, dtype=np.int64), np.zeros(region_count, dtype=np.int64)
    np.minimum.at(x0, runs.region, runs.x)
    np.minimum.at(y0, runs.region, runs.y)
    np.maximum.at(x1, runs.region, runs.x + runs.length)
    np.maximum.at(y1, runs.region, runs.y + 1)
    return _Boxes(area=area, x0=x0, y0=y0, x1=x1, y1=y1)


def _clear(kept: UInt8Array, runs: Runs, which: npt.NDArray[np.bool_], *, origin_xy: tuple[int, int]) -> None:
    """Make background of some runs; regions below the least area are few pixels by their nature."""
    lengths = runs.length[which]
    within = np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    y, x = (np.repeat(place[which], lengths) for place in (runs.y - origin_xy[1], runs.x - origin_xy[0]))
    kept[y, x + within] = 0


def _measure_shapes(runs: Runs, boxes: _Boxes) -> _Shapes:
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


def _measure_perimeters(labelled: Labelled) -> npt.NDArray[np.float64]:
    """Turn the pairs of a defect pixel and a background neighbour in four directions into lengths.

    Each pair is one crossing of the boundary by a grid line. Crofton: length = 1/2 * integral over the directions in
    [0, pi) of the crossings; four directions stand for pi / 4 each, and diagonal lines lie 1 / sqrt(2) apart.
    """
    crossings = labelled.axis_crossings + labelled.corner_crossings * math.sqrt(0.5)
    return np.asarray(crossings * (math.pi / 8), dtype=np.float64)
