"""Finds the connected regions of a mask from its runs: the unbroken horizontal stretches of defect pixels.

A mask of a few defects has some hundred runs and millions of pixels. Once the runs are found, no pixel is looked at
again: which of them touch, how far they border on background and how long a region is all follow from where they begin
and end.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from defectoscope.segmentation.arrays import UInt8Array

_Numbers = npt.NDArray[np.int64]

#: Runs whose neighbours are looked for at a time; it takes some 30 MB.
_BATCH_RUNS = 2**18


@dataclass(frozen=True, slots=True, kw_only=True)
class Runs:
    """The runs of a mask, row by row; (K,) each.

    Attributes:
        y: row.
        x: column of the first pixel.
        length: pixels.
        highest: largest level.
        summed: sum of the levels.
    """

    y: _Numbers
    x: _Numbers
    length: _Numbers
    highest: UInt8Array
    summed: npt.NDArray[np.uint32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Regions:
    """What connects the runs of a mask (8-connectivity).

    Attributes:
        of_run: (K,) the region of each run; regions count from 0 in the order of their first pixels.
        first_run: (R,) of each region.
        axis_crossings: (R,) pairs of a pixel of the region and a background pixel beside, above or below it.
        corner_crossings: (R,) the same across a corner.
    """

    of_run: _Numbers
    first_run: _Numbers
    axis_crossings: _Numbers
    corner_crossings: _Numbers


def find_runs(mask: UInt8Array, levels: UInt8Array) -> Runs:
    """Find the runs of a mask.

    Args:
        mask: (H, W) uint8; anything but 0 is defect. Beyond it is background.
        levels: (H, W) uint8.
    """
    # Eight pixels to a byte, and a byte of background behind each row, so that every run ends in its row.
    packed = np.packbits(mask, axis=1)
    rows = np.zeros((len(packed), packed.shape[1] + 1), dtype=np.uint8)
    rows[:, :-1] = packed
    bounds = _find_changes(rows.ravel()).reshape(-1, 2)
    y, x = np.divmod(bounds[:, 0], 8 * rows.shape[1])
    length = bounds[:, 1] - bounds[:, 0]
    # Of the levels only those of defect pixels, looked for where there are any.
    box = np.s_[y[0] : y[-1] + 1, x.min() : (x + length).max()] if len(y) else np.s_[:0]
    of_defects = levels[box][mask[box] != 0]
    starts = np.cumsum(length) - length
    return Runs(
        y=y,
        x=x,
        length=length,
        highest=np.maximum.reduceat(of_defects, starts),
        # 32 bits hold a run of 16 million pixels of 255.
        summed=np.add.reduceat(of_defects, starts, dtype=np.uint32),
    )


def _find_changes(packed: UInt8Array) -> _Numbers:
    """Give the places of the bits that differ from the one before them, a 0 before the first."""
    before = packed >> 1
    before[1:] |= packed[:-1] << 7
    changed = np.asarray(packed ^ before, dtype=np.uint8)
    # numpy finds booleans several times as fast as numbers.
    places = np.flatnonzero(changed != 0)
    which, bit = np.nonzero(np.unpackbits(changed[places].reshape(-1, 1), axis=1))
    return places[which] * 8 + bit


def connect(runs: Runs, *, width: int, batch_runs: int = _BATCH_RUNS) -> Regions:
    """Find which runs make one region.

    Args:
        runs: of a mask.
        width: of the mask.
        batch_runs: runs whose neighbours are looked for at a time; it changes nothing but time and memory.
    """
    # The lowest run that each is known to be connected with, at last the first of its region.
    lowest = np.arange(len(runs.y))
    axis_shared, corner_shared = np.zeros_like(lowest), np.zeros_like(lowest)
    for pairs in _find_neighbours(runs, width=width, batch_runs=batch_runs):
        np.add.at(axis_shared, pairs.upper, pairs.overlap(0))
        np.add.at(corner_shared, pairs.upper, pairs.overlap(1) + pairs.overlap(-1))
        _unite(lowest, pairs)
    _shorten(lowest, slice(None))
    is_first = lowest == np.arange(len(lowest))
    of_run = (np.cumsum(is_first) - 1)[lowest]
    region_count = int(np.count_nonzero(is_first))
    # Of two defect pixels beside each other neither borders on background there.
    axis_crossings, corner_crossings = (
        np.bincount(of_run, weights=crossings, minlength=region_count).astype(np.int64)
        for crossings in (2 + 2 * runs.length - 2 * axis_shared, 4 * runs.length - 2 * corner_shared)
    )
    return Regions(
        of_run=of_run,
        first_run=np.flatnonzero(is_first),
        axis_crossings=axis_crossings,
        corner_crossings=corner_crossings,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pairs:
    """Runs of neighbouring rows that touch, at least at a corner; (P,) each.

    Attributes:
        upper, lower: numbers of the two runs; both ascend.
        upper_start, upper_end, lower_start, lower_end: columns, the ends exclusive, counted from anywhere.
    """

    upper: _Numbers
    lower: _Numbers
    upper_start: _Numbers
    upper_end: _Numbers
    lower_start: _Numbers
    lower_end: _Numbers

    def overlap(self, by: int) -> _Numbers:
        """Return how many columns the two share when the upper one is moved so far to the right."""
        end = np.minimum(self.upper_end + by, self.lower_end)
        shared: _Numbers = end - np.maximum(self.upper_start + by, self.lower_start)
        return shared.clip(0)


def _find_neighbours(runs: Runs, *, width: int, batch_runs: int) -> Iterator[_Pairs]:
    """Yield the pairs of runs that touch, from the top down."""
    # Places along one line of all rows; the gap keeps the end of a row away from the beginning of the next.
    pitch = width + 2
    start = runs.y * pitch + runs.x
    end = start + runs.length
    for first in range(0, len(start), batch_runs):
        # Of each run the place below it, and which runs come within one pixel of that.
        below_start, below_end = (place[first : first + batch_runs] + pitch for place in (start, end))
        lower_first = np.searchsorted(end, below_start - 1, side="right")
        counts = np.searchsorted(start, below_end + 1, side="left") - lower_first
        upper = np.repeat(np.arange(len(counts)), counts)
        if not len(upper):
            continue
        lower = np.arange(len(upper)) + np.repeat(lower_first - (np.cumsum(counts) - counts), counts)
        yield _Pairs(
            upper=upper + first,
            lower=lower,
            upper_start=below_start[upper],
            upper_end=below_end[upper],
            lower_start=start[lower],
            lower_end=end[lower],
        )


def _unite(lowest: _Numbers, pairs: _Pairs) -> None:
    """Note that the runs of each pair are connected: of the lowest of both, the greater with the smaller."""
    upper, lower = pairs.upper, pairs.lower
    touched = slice(int(upper[0]), int(lower[-1]) + 1)
    while True:
        uppers, lowers = lowest[upper], lowest[lower]
        differ = np.flatnonzero(uppers != lowers)
        if not len(differ):
            return
        upper, lower = upper[differ], lower[differ]
        uppers, lowers = uppers[differ], lowers[differ]
        smaller = np.minimum(uppers, lowers)
        np.minimum.at(lowest, uppers, smaller)
        np.minimum.at(lowest, lowers, smaller)
        _shorten(lowest, touched)


def _shorten(lowest: _Numbers, which: slice) -> None:
    """Let each run know the lowest of the one that it knows, until that is its own."""
    known = lowest[which]
    while not np.array_equal(shortened := lowest[known], known):
        lowest[which] = known = shortened
