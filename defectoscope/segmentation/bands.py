"""Labels the connected regions of a window of a mask band by band, so that memory does not grow with the window.

Labels take four bytes for each pixel of a band. What is left of a band are its runs: a run lies in one region and its
sums have closed forms, so that a large region costs its height and not its area.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from defectoscope.segmentation.arrays import UInt8Array

_Numbers = npt.NDArray[np.int64]

#: A band has about so many pixels; its labels and what else it needs for a moment are some 40 MB.
BAND_PX = 2**22


@dataclass(frozen=True, slots=True)
class Runs:
    """The horizontal runs of defect pixels, row by row; (K,) each.

    Attributes:
        region: number of the region that it lies in, from 0.
        x: of the first pixel, in the image.
        y: likewise.
        length: pixels.
        highest: largest level.
        summed: sum of the levels.
    """

    region: _Numbers
    x: _Numbers
    y: _Numbers
    length: _Numbers
    highest: UInt8Array
    summed: npt.NDArray[np.uint32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
    """The regions of a window.

    Attributes:
        runs: of all regions.
        region_count: R, how many there are.
        axis_crossings: (R,) pairs of a pixel of the region and a background pixel beside, above or below it.
        corner_crossings: (R,) the same across a corner.
    """

    runs: Runs
    region_count: int
    axis_crossings: _Numbers
    corner_crossings: _Numbers


def label_regions(
    mask: UInt8Array, probabilities: UInt8Array, *, origin_xy: tuple[int, int], band_px: int = BAND_PX
) -> Labelled:
    """Find the connected regions of a window (8-connectivity).

    Args:
        mask: (h, w) uint8; anything but 0 is defect. Beyond it is background.
        probabilities: (h, w) uint8; 255 is a certain defect.
        origin_xy: where in the image the window begins.
        band_px: pixels that are labelled at a time, a row at least; it changes nothing but time and memory.
    """
    height, width = mask.shape
    rows = max(1, band_px // width)
    parts: list[Runs] = []
    touching: list[_Numbers] = []
    crossings = [np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)]
    # Regions are numbered through all bands; -1 is background. Above the first band there is nothing else.
    above = np.full(width + 2, -1, dtype=np.int64)
    count = 0
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        # A frame of background, so that every run ends in its row and every neighbour exists.
        framed = _frame(mask[top:bottom])
        labels_in_band, raw_labels = cv2.connectedComponents(framed, connectivity=8)
        labels: npt.NDArray[np.int32] = np.asarray(raw_labels, dtype=np.int32)  # (h + 2, w + 2), 0 is background
        parts.append(_find_runs(framed, labels, _frame(probabilities[top:bottom]), count - 1, (origin_xy, top)))
        below = _number(labels[-2], count - 1)
        if top:
            touching.append(_find_touching(above, _number(labels[1], count - 1)))
            # The row above takes the place of the frame, with labels that give its numbers by the same sum.
            framed[0], labels[0] = above >= 0, above - (count - 1)
        end = len(framed) if bottom == height else len(framed) - 1
        _count_crossings(framed[:end], labels[:end], count - 1, into=crossings)
        above = below
        count += labels_in_band - 1
    region_of, region_count = _join(count, touching)
    axis_crossings, corner_crossings = (
        np.bincount(region_of[: len(counts)], weights=counts, minlength=region_count).astype(np.int64)
        for counts in crossings
    )
    return Labelled(
        runs=Runs(
            region=region_of[np.concatenate([part.region for part in parts])],
            x=np.concatenate([part.x for part in parts]),
            y=np.concatenate([part.y for part in parts]),
            length=np.concatenate([part.length for part in parts]),
            highest=np.concatenate([part.highest for part in parts]),
            summed=np.concatenate([part.summed for part in parts]),
        ),
        region_count=region_count,
        axis_crossings=axis_crossings,
        corner_crossings=corner_crossings,
    )


def _frame(window: UInt8Array) -> UInt8Array:
    return np.asarray(cv2.copyMakeBorder(window, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0), dtype=np.uint8)


def _number(labels: npt.NDArray[np.int32], offset: int) -> _Numbers:
    """Turn labels of a band into numbers through all bands, -1 for background."""
    return np.where(labels > 0, labels.astype(np.int64) + offset, -1)


def _find_runs(
    framed: UInt8Array,
    labels: npt.NDArray[np.int32],
    framed_levels: UInt8Array,
    offset: int,
    origin: tuple[tuple[int, int], int],
) -> Runs:
    (left, window_top), band_top = origin
    is_defect = framed.ravel() != 0
    bounds = np.flatnonzero(is_defect[1:] != is_defect[:-1]) + 1
    starts = bounds[::2]
    y, x = np.divmod(starts, framed.shape[1])
    levels = framed_levels.ravel()
    return Runs(
        region=labels.ravel()[starts].astype(np.int64) + offset,
        x=x - 1 + left,
        y=y - 1 + window_top + band_top,
        length=bounds[1::2] - starts,
        # Every second piece between the bounds is a run; the others are background.
        highest=np.maximum.reduceat(levels, bounds)[::2],
        # 32 bits hold a run of 16 million pixels of 255, and the wider type takes three times as long.
        summed=np.add.reduceat(levels, bounds, dtype=np.uint32)[::2],
    )


def _find_touching(upper: _Numbers, lower: _Numbers) -> _Numbers:
    """Give the numbers of regions that touch across the border of two bands, (2, P), from the rows beside it."""
    pairs = []
    for shift in (-1, 0, 1):
        beside = lower[max(0, shift) : len(lower) + min(0, shift)]
        facing = upper[max(0, -shift) : len(upper) + min(0, -shift)]
        pairs.append(np.stack([facing, beside])[:, (facing >= 0) & (beside >= 0)])
    return np.concatenate(pairs, axis=1)


def _count_crossings(
    framed: UInt8Array, labels: npt.NDArray[np.int32], offset: int, *, into: list[npt.NDArray[np.int64]]
) -> None:
    """Add the pairs of a defect pixel and a background neighbour, by region: first along an axis, then across a corner.

    The first row belongs to the band before, which has counted the pairs within it, but not those with the next row.
    """
    is_defect, label = framed.ravel() != 0, labels.ravel()
    row = framed.shape[1]
    for step, start, kind in ((1, row, 0), (row, 0, 0), (row + 1, 0, 1), (row - 1, 0, 1)):
        crossed = np.flatnonzero(is_defect[start + step :] != is_defect[start:-step]) + start
        inside = np.where(is_defect[crossed], crossed, crossed + step)
        counts = np.bincount(label[inside].astype(np.int64) + offset, minlength=len(into[kind]))
        counts[: len(into[kind])] += into[kind]
        into[kind] = counts


def _join(count: int, touching: Sequence[_Numbers]) -> tuple[_Numbers, int]:
    """Give the final number of each of so many regions of bands, those that touch being one, and how many there are."""
    if not touching:
        return np.arange(count), count
    lowest = np.arange(count)
    one, other = np.concatenate(touching, axis=1)
    while True:
        ones, others = lowest[one], lowest[other]
        if np.array_equal(ones, others):
            break
        smaller = np.minimum(ones, others)
        np.minimum.at(lowest, ones, smaller)
        np.minimum.at(lowest, others, smaller)
        while not np.array_equal(shortened := lowest[lowest], lowest):
            lowest = shortened
    is_first = lowest == np.arange(count)
    return (np.cumsum(is_first) - 1)[lowest], int(np.count_nonzero(is_first))
