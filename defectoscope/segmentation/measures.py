"""Measures the connected regions of a mask.

All measures are computed for all regions at once from their runs, so that neither fifty thousand specks nor one region
that fills the image is slow. A run's sums have closed forms: a large region costs its height and not its area.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from defectoscope.segmentation.arrays import UInt8Array
from defectoscope.segmentation.runs import Regions, Runs

#: Second moment of a unit square about its centre: a pixel is an area, not a point.
_PIXEL_MOMENT = 1 / 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Measures:
    """The measures of all regions, in pixels, in the order of their first pixels; (R,) each unless said otherwise."""

    area: npt.NDArray[np.int64]
    box_xyxy: npt.NDArray[np.int64]  # (R, 4), the ends exclusive
    centroid_xy: npt.NDArray[np.float64]  # (R, 2)
    major_axis: npt.NDArray[np.float64]
    minor_axis: npt.NDArray[np.float64]
    orientation_deg: npt.NDArray[np.float64]
    perimeter: npt.NDArray[np.float64]
    highest: UInt8Array
    summed: npt.NDArray[np.float64]


def measure_regions(runs: Runs, regions: Regions) -> Measures:
    """Measure all regions of a mask.

    Args:
        runs: of the mask.
        regions: that they make.
    """
    region, region_count = regions.of_run, len(regions.first_run)
    area = np.bincount(region, weights=runs.length, minlength=region_count).astype(np.int64)
    boxes = _measure_boxes(runs, regions)
    shapes = _measure_shapes(runs, region, area, boxes)
    highest = np.zeros(region_count, dtype=np.uint8)
    np.maximum.at(highest, region, runs.highest)
    return Measures(
        area=area,
        box_xyxy=boxes,
        centroid_xy=np.stack([shapes.centre_x, shapes.centre_y], axis=1),
        major_axis=shapes.major_axis,
        minor_axis=shapes.minor_axis,
        orientation_deg=shapes.orientation_deg,
        perimeter=_measure_perimeters(regions),
        highest=highest,
        summed=np.bincount(region, weights=runs.summed, minlength=region_count).astype(np.float64),
    )


def _measure_boxes(runs: Runs, regions: Regions) -> npt.NDArray[np.int64]:
    # A region's first run gives its top; on the other sides any run may be the outermost.
    x0, y0 = runs.x[regions.first_run], runs.y[regions.first_run]
    x1, y1 = np.zeros_like(x0), np.zeros_like(y0)
    np.minimum.at(x0, regions.of_run, runs.x)
    np.maximum.at(x1, regions.of_run, runs.x + runs.length)
    np.maximum.at(y1, regions.of_run, runs.y + 1)
    return np.stack([x0, y0, x1, y1], axis=1)


@dataclass(frozen=True, slots=True)
class _Shapes:
    """(R,) float64 each, in pixels."""

    centre_x: npt.NDArray[np.float64]
    centre_y: npt.NDArray[np.float64]
    major_axis: npt.NDArray[np.float64]
    minor_axis: npt.NDArray[np.float64]
    orientation_deg: npt.NDArray[np.float64]


def _measure_shapes(
    runs: Runs, region: npt.NDArray[np.int64], area: npt.NDArray[np.int64], boxes: npt.NDArray[np.int64]
) -> _Shapes:
    """Compute the centroids of all regions and the ellipses with the same second moments."""
    # Coordinates count from the region's own box, so that no precision is lost in large images.
    x0, y0 = boxes[:, 0], boxes[:, 1]
    x = (runs.x - x0[region]).astype(np.float64)
    y = (runs.y - y0[region]).astype(np.float64)
    n = runs.length.astype(np.float64)
    # Sums of x + k and of (x + k) ** 2 over k = 0 ... n - 1.
    sum_x = n * x + n * (n - 1) / 2
    sum_xx = n * x**2 + x * n * (n - 1) + (n - 1) * n * (2 * n - 1) / 6

    def mean(sums: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.asarray(np.bincount(region, weights=sums, minlength=len(area)) / area, dtype=np.float64)

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
        centre_x=mean_x + x0,
        centre_y=mean_y + y0,
        major_axis=4 * np.sqrt(middle + spread),
        minor_axis=4 * np.sqrt(np.maximum(middle - spread, 0)),
        orientation_deg=np.degrees(np.arctan2(2 * cov, difference)) / 2,
    )


def _measure_perimeters(regions: Regions) -> npt.NDArray[np.float64]:
    """Turn the pairs of a defect pixel and a background neighbour in four directions into lengths.

    Each pair is one crossing of the boundary by a grid line. Crofton: length = 1/2 * integral over the directions in
    [0, pi) of the crossings; four directions stand for pi / 4 each, and diagonal lines lie 1 / sqrt(2) apart.
    """
    crossings = regions.axis_crossings + regions.corner_crossings * math.sqrt(0.5)
    return np.asarray(crossings * (math.pi / 8), dtype=np.float64)
