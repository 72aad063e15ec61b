"""Arithmetic of the benchmarks: medians, ratios of pairs, the slope of a line. It measures nothing."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence


def median_ratio(slow: Sequence[float], fast: Sequence[float]) -> float:
    """Return the median over the pairs of how many times longer the first took.

    Args:
        slow: seconds of each turn, in order.
        fast: seconds of the other side's turns; the n-th belongs to the n-th of the first.

    Raises:
        ValueError: the turns do not pair up, or there is none.
    """
    if not slow:
        raise ValueError("There is no turn to take a ratio of.")
    return statistics.median(one / other for one, other in zip(slow, fast, strict=True))


def slope(xs: Sequence[float], ys: Sequence[float]) -> float:
    """Return by how much y rises for each 1 of x: the line of least squares.

    Raises:
        ValueError: fewer than two different x.
    """
    try:
        return statistics.linear_regression(xs, ys).slope
    except statistics.StatisticsError as exc:
        raise ValueError(f"A line needs two different points: {exc}.") from exc


def share_of_linear(images_per_s: Sequence[float], workers: Sequence[int]) -> list[float]:
    """Return for each number of workers what share of that many times the first's speed was reached.

    Args:
        images_per_s: of each run.
        workers: processes in each run; the first run is what the others are compared with.
    """
    alone = images_per_s[0] / workers[0]
    return [speed / (alone * count) for speed, count in zip(images_per_s, workers, strict=True)]


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least this share of all values do not exceed (nearest rank).

    Args:
        values: at least one, in any order.
        share: above 0, at most 1; 0.95 for p95.

    Raises:
        ValueError: there is no value, or the share is out of range.
    """
    if not values or not 0 < share <= 1:
        raise ValueError("A percentile needs a value, and a share above 0 and at most 1.")
    ordered = sorted(values)
    # Rounded first: 0.95 * 20 may be a little more than 19 in binary.
    return ordered[math.ceil(round(share * len(ordered), 9)) - 1]
