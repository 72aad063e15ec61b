"""Fills polygons pixel for pixel as the COCO tools do, so that a mask is the same here and there.

The rule of `rleFrPoly` in the COCO API (Lin et al., 2014): the outline is walked on a grid five times as fine, and
each column of pixels is filled between the places where the outline crosses its middle. That rule is kept rather than
one of a drawing library, because published labels were made and are scored with it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from defectoscope.dataset.formats.json_values import as_number
from defectoscope.errors.images import PolygonInvalid

_FINER = 5
_LEAST_POINTS = 3


def read_points(values: Sequence[object]) -> list[tuple[float, float]]:
    """Read ``[x, y, x, y, ...]`` or ``[[x, y], [x, y], ...]``.

    Raises:
        PolygonInvalid: a coordinate is no finite number, one is missing, or there are fewer than three points.
    """
    flat: list[object] = []
    for value in values:
        if isinstance(value, list):
            if len(value) != 2:  # noqa: PLR2004 -- x and y
                raise PolygonInvalid("A point of a polygon has not two coordinates.")
            flat.extend(value)
        else:
            flat.append(value)
    numbers = [as_number(value) for value in flat]
    known = [number for number in numbers if number is not None]
    if len(known) < len(numbers):
        raise PolygonInvalid("A coordinate of a polygon is not a finite number.")
    if len(known) % 2:
        raise PolygonInvalid("The last point of a polygon has one coordinate only.")
    points = list(zip(known[::2], known[1::2], strict=True))
    if len(points) < _LEAST_POINTS:
        raise PolygonInvalid(f"A polygon has {len(points)} points; it needs three or more.", points=len(points))
    return points


def fill_polygon(
    points_xy: Sequence[tuple[float, float]], *, shape_hw: tuple[int, int]
) -> tuple[int, npt.NDArray[np.bool_]]:
    """Find the pixels of a polygon.

    Args:
        points_xy: its corners in pixels; (0, 0) is the upper left corner of the image. What lies outside is cut off.
        shape_hw: of the image.

    Returns:
        The first column that it touches, and (columns, H) bool from there on.

    Raises:
        PolygonInvalid: a corner lies further outside the image than the image is large.
    """
    height, width = shape_hw
    corners = np.asarray(points_xy, dtype=np.float64)
    # A slip of the hand ends just outside; a corner this far away is in other units, and would take all memory.
    least, most = corners.min(axis=0), corners.max(axis=0)
    if least[0] < -width or least[1] < -height or most[0] > 2 * width or most[1] > 2 * height:
        raise PolygonInvalid(
            f"A polygon goes from ({least[0]:g}, {least[1]:g}) to ({most[0]:g}, {most[1]:g}); "
            f"the image has {width} x {height} pixels.",
            box_xyxy=[*least.tolist(), *most.tolist()],
        )
    column, row = _find_crossings(corners, shape_hw=shape_hw)
    if not column.size:
        return 0, np.zeros((0, height), dtype=np.bool_)
    left, right = int(column.min()), int(column.max()) + 1
    # A crossing at the lower edge turns filling off at the top of the next column; hence one cell more.
    toggles = np.zeros((right - left) * height + 1, dtype=np.uint8)
    np.bitwise_xor.at(toggles, (column - left) * height + row, np.uint8(1))
    inside = np.bitwise_xor.accumulate(toggles)[:-1].astype(np.bool_)
    return left, inside.reshape(right - left, height)


def _find_crossings(
    corners: npt.NDArray[np.float64], *, shape_hw: tuple[int, int]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return column and row of every place where the outline crosses the middle of a column; (K,) each."""
    height, width = shape_hw
    x, y = _walk_outline(np.trunc(corners * _FINER + 0.5).astype(np.int64))
    moves = np.flatnonzero(np.diff(x)) + 1
    column = np.minimum(x[moves], x[moves - 1])
    # Of five fine columns the third is the middle.
    is_middle = (column - _FINER // 2) % _FINER == 0
    column = (column - _FINER // 2) // _FINER
    is_inside = is_middle & (column >= 0) & (column <= width - 1)
    row = (np.minimum(y[moves], y[moves - 1]) + 0.5) / _FINER - 0.5
    row = np.ceil(np.clip(row, 0, height)).astype(np.int64)
    return column[is_inside], row[is_inside]


def _walk_outline(corners: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return every point of the closed outline on the fine grid, one step after the other; (P,) each."""
    x: list[npt.NDArray[np.int64]] = []
    y: list[npt.NDArray[np.int64]] = []
    for start, end in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        across, down = np.abs(end - start).tolist()
        if across == down == 0:
            continue
        along = 0 if across >= down else 1
        # Each edge is computed in one direction, so that two polygons that share it share its pixels.
        is_turned = start[along] > end[along]
        first, last = (end, start) if is_turned else (start, end)
        steps = np.arange(last[along] - first[along] + 1)
        slope = (last[1 - along] - first[1 - along]) / (last[along] - first[along])
        ahead = first[along] + steps
        aside = np.trunc(first[1 - along] + slope * steps + 0.5).astype(np.int64)
        points = (ahead, aside) if along == 0 else (aside, ahead)
        x.append(points[0][::-1] if is_turned else points[0])
        y.append(points[1][::-1] if is_turned else points[1])
    empty = np.zeros(0, dtype=np.int64)
    return np.concatenate([empty, *x]), np.concatenate([empty, *y])
