"""Finds the few rectangles of a mask that hold its defect pixels, so that what lies between them costs nothing.

Labelling takes four bytes for each pixel it looks at, and two specks in opposite corners would make it look at the
whole image. No two rectangles touch, not even across a corner: between any two lies a row or a column of background.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from defectoscope.segmentation.arrays import UInt8Array

#: Background of fewer pixels is not cut out: a window of its own takes as long as looking at this many.
_LEAST_GAP_PX = 2**16


def split_windows(mask: UInt8Array) -> list[tuple[int, int, int, int]]:
    """Find windows that together hold every defect pixel.

    Args:
        mask: (H, W) uint8; anything but 0 is defect.

    Returns:
        Left, top, right and bottom of each, the last two exclusive; no connected region lies in two of them. None for
        a mask without defect pixels.
    """
    height, width = mask.shape
    return list(_split(mask, (0, 0, width, height), axis=0, is_whole=False))


def _split(
    mask: UInt8Array, box_xyxy: tuple[int, int, int, int], *, axis: int, is_whole: bool
) -> Iterator[tuple[int, int, int, int]]:
    """Cut a window across one axis, and its pieces across the other, until neither way finds a gap.

    Args:
        mask: the whole mask.
        box_xyxy: of the window.
        axis: 0 to look for empty rows, 1 for empty columns.
        is_whole: whether the other axis was tried last, and nothing was cut off.
    """
    left, top, right, bottom = box_xyxy
    window = mask[top:bottom, left:right]
    filled = np.flatnonzero(window.max(axis=1 - axis))
    if not len(filled):
        return
    least_gap = max(1, _LEAST_GAP_PX // window.shape[1 - axis])
    cuts = np.flatnonzero(np.diff(filled) > least_gap)
    starts = [int(filled[0]), *filled[cuts + 1].tolist()]
    ends = [*(filled[cuts] + 1).tolist(), int(filled[-1]) + 1]
    is_uncut = starts == [0] and ends == [window.shape[axis]]
    for start, end in zip(starts, ends, strict=True):
        piece = (left, top + start, right, top + end) if axis == 0 else (left + start, top, left + end, bottom)
        if is_uncut and is_whole:
            yield piece
        else:
            yield from _split(mask, piece, axis=1 - axis, is_whole=is_uncut)
