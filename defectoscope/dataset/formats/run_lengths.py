"""Run lengths of COCO: the pixels column by column, as counts of background and region in turn, or those as text.

Written here and not taken from pycocotools, whose decoder trusts its input: counts that end early or do not fit the
size are read beyond the end of memory there, and have a name here.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from defectoscope.errors.images import RunLengthsInvalid

#: The text holds six bits a character from this one on: five of the number, and whether it goes on.
_FIRST_CHARACTER = 48
_GOES_ON = 0x20
_SIGN = 0x10
_FIVE_BITS = 0x1F
#: More characters than any count of pixels needs.
_MOST_CHARACTERS = 12
#: From this count on, the text holds the difference to the count two before.
_FIRST_DIFFERENCE = 3


def find_spans(counts: Sequence[object], *, shape_hw: tuple[int, int]) -> npt.NDArray[np.int64]:
    """Return the pixels of the region that counts describe.

    Args:
        counts: pixels of background, region, background and so on, column by column.
        shape_hw: of the image.

    Returns:
        (K, 2) start and exclusive end of each run of the region, among all pixels column by column.

    Raises:
        RunLengthsInvalid: they are not whole numbers, or do not add up to the pixels of the image.
    """
    height, width = shape_hw
    lengths = [count for count in counts if isinstance(count, int) and not isinstance(count, bool) and count >= 0]
    if len(lengths) < len(counts):
        raise RunLengthsInvalid("A run length is not a whole number of 0 or more.")
    if sum(lengths) != height * width:
        raise RunLengthsInvalid(
            f"The run lengths add up to {sum(lengths)} pixels; the image has {width} x {height}.",
            pixels=sum(lengths),
            shape_hw=list(shape_hw),
        )
    bounds = np.cumsum(np.asarray(lengths, dtype=np.int64))
    spans = np.stack([bounds[: len(bounds) // 2 * 2 : 2], bounds[1::2]], axis=1)
    return spans[spans[:, 0] < spans[:, 1]]


def encode_runs(window: npt.NDArray[np.bool_], *, shape_hw: tuple[int, int], left: int = 0, top: int = 0) -> list[int]:
    """Return the counts of a region, of which a window of the image holds every pixel.

    Args:
        window: (h, w) bool.
        shape_hw: of the image.
        left: the window's first column in the image.
        top: the window's first row in the image.
    """
    height, width = shape_hw
    steps = np.diff(np.pad(window.astype(np.int8), ((1, 1), (0, 0))), axis=0).T  # (w, h + 1): columns come first
    starts, ends = (
        (column + left) * height + row + top for column, row in (np.nonzero(steps == 1), np.nonzero(steps == -1))
    )
    if not starts.size:
        return [height * width]
    # A run at the lower edge goes on at the top of the next column.
    is_apart = starts[1:] != ends[:-1]
    bounds = np.stack([starts[np.append(True, is_apart)], ends[np.append(is_apart, True)]], axis=1).ravel()
    counts: list[int] = np.diff(np.concatenate([[0], bounds, [height * width]])).tolist()
    return counts if counts[-1] else counts[:-1]


def decode_text(text: str) -> list[int]:
    """Return the counts that a compressed text holds.

    Raises:
        RunLengthsInvalid: it has a character that does not occur in such texts, or ends within a number.
    """
    counts: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - _FIRST_CHARACTER
        if not 0 <= bits < 2 * _GOES_ON or shift > 5 * _MOST_CHARACTERS:
            raise RunLengthsInvalid("The compressed run lengths hold a character that has no meaning there.")
        value |= (bits & _FIVE_BITS) << shift
        shift += 5
        if bits & _GOES_ON:
            continue
        if bits & _SIGN:
            value -= 1 << shift
        counts.append(value + counts[-2] if len(counts) >= _FIRST_DIFFERENCE else value)
        value = shift = 0
    if shift:
        raise RunLengthsInvalid("The compressed run lengths end within a number.")
    return counts


def encode_text(counts: Sequence[int]) -> str:
    """Return counts as compressed text."""
    characters: list[str] = []
    for index, count in enumerate(counts):
        value = count - counts[index - 2] if index >= _FIRST_DIFFERENCE else count
        goes_on = True
        while goes_on:
            bits = value & _FIVE_BITS
            value >>= 5
            goes_on = value != (-1 if bits & _SIGN else 0)
            characters.append(chr(bits + (_GOES_ON if goes_on else 0) + _FIRST_CHARACTER))
    return "".join(characters)
