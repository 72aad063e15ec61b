"""Decodes ordinary JPEG files by OpenCV, a third of the time and to the same bits; everything else as ``decode`` does.

Both libraries carry libjpeg-turbo; OpenCV writes RGB into one array where Pillow fills four bytes a pixel and converts.
A JPEG can also be had at a half, a quarter or an eighth of its size, which leaves most of the work out. Kept apart
from ``decode``, which runs where OpenCV is not installed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np
from PIL import Image, ImageFile

from defectoscope.segmentation.arrays import UInt8Array
from defectoscope.segmentation.decode import DecodedImage, decode_opened
from defectoscope.segmentation.image_file import (
    DEFAULT_LIMITS,
    QUARTER_TURNS,
    DecodeLimits,
    demand_whole,
    open_checked,
    read_shape_hw,
    read_turn,
)
from defectoscope.segmentation.structure import read_jpeg

#: By how much a JPEG may be reduced while it is decoded, and what asks OpenCV for it.
_REDUCTIONS = {
    8: cv2.IMREAD_REDUCED_COLOR_8,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    1: cv2.IMREAD_COLOR,
}


#: Pixels at the end of the last row that are of one colour where a decoder has run out of data: two blocks of a picture
#: with colours at half the resolution.
_FLAT_PX = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedImage:
    """A file whose header was read and found in order; its pixels are still to be decoded.

    Attributes:
        data: the whole file.
        shape_hw: height and width of the image in pixels, upright.
        format: "PNG", "JPEG", "TIFF", "BMP" or "WEBP", from the content.
        source_mode: Pillow's mode of the stored pixels.
        read_pixels: decodes them, given the size that is enough; see `decode_quickly`.
    """

    data: bytes
    shape_hw: tuple[int, int]
    format: str
    source_mode: str
    read_pixels: Callable[[tuple[int, int] | None], DecodedImage]

    def decode(self, *, least_size_wh: tuple[int, int] | None = None) -> DecodedImage:
        """Decode the pixels; see `decode_quickly`.

        Raises:
            InvalidImage: the pixels are damaged; the error says how.
        """
        return self.read_pixels(least_size_wh)


def open_image(data: bytes, *, limits: DecodeLimits = DEFAULT_LIMITS) -> OpenedImage:
    """Check an image file as far as its header goes.

    Args:
        data: the whole file.
        limits: what it may weigh.

    Raises:
        InvalidImage: as `decode_image` before it decodes a pixel.
    """
    file = open_checked(data, limits=limits)
    shape_hw = read_shape_hw(file)
    return OpenedImage(
        data=data,
        shape_hw=shape_hw,
        format=str(file.format),
        source_mode=file.mode,
        read_pixels=partial(_decode_file, file, data, shape_hw),
    )


def decode_quickly(
    data: bytes, *, limits: DecodeLimits = DEFAULT_LIMITS, least_size_wh: tuple[int, int] | None = None
) -> DecodedImage:
    """Decode an image as `decode_image` does, faster.

    Args:
        data: the whole file.
        limits: what it may weigh.
        least_size_wh: width and height, upright, that are enough for the purpose. A JPEG may then come smaller than it
            is, by 2, 4 or 8 in both directions, but not below this. Its pixels are means that the decoder takes in
            the frequency domain: within a few levels of a mean over the pixels.

    Returns:
        The decoded image. Without ``least_size_wh``, or where nothing can be saved, the pixels are those of
        `decode_image` to the bit.

    Raises:
        InvalidImage: as `decode_image`, but for a JPEG that is damaged behind its last block: its pixels are all there.
    """
    return open_image(data, limits=limits).decode(least_size_wh=least_size_wh)


def _decode_file(
    file: ImageFile.ImageFile, data: bytes, shape_hw: tuple[int, int], least_size_wh: tuple[int, int] | None
) -> DecodedImage:
    # CMYK has no one formula, so that it stays with Pillow's.
    if file.format != "JPEG" or file.mode not in {"RGB", "L"}:
        return decode_opened(file)
    reduction = 1 if least_size_wh is None else _find_reduction(shape_hw, least_size_wh)
    turn = read_turn(file)
    stored_hw = shape_hw[::-1] if turn in QUARTER_TURNS else shape_hw
    pixels = _decode_jpeg(data, stored_hw, reduction=reduction)
    if pixels is None:
        # What OpenCV refuses Pillow judges, and names.
        return decode_opened(file)
    if _may_be_made_up(data, pixels, reduction=reduction):
        demand_whole(data)
    if turn is not None:
        pixels = np.array(Image.fromarray(pixels).transpose(turn))
    return DecodedImage(pixels=pixels, shape_hw=shape_hw, format="JPEG", source_mode=file.mode)


def _decode_jpeg(data: bytes, shape_hw: tuple[int, int], *, reduction: int) -> UInt8Array | None:
    """Give (H, W, 3) uint8 RGB as stored and perhaps reduced; None where OpenCV cannot read the file."""
    # The reductions ask for BGR by the same bit as IMREAD_COLOR, which must not stand beside that for RGB.
    flags = _REDUCTIONS[reduction] & ~cv2.IMREAD_COLOR | cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        decoded = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), flags)
    except cv2.error:
        return None
    if decoded is None:
        return None
    pixels = np.asarray(decoded, dtype=np.uint8)
    return pixels if pixels.shape == (*(-(-side // reduction) for side in shape_hw), 3) else None


def _may_be_made_up(data: bytes, pixels: UInt8Array, *, reduction: int) -> bool:
    """Tell whether a part of the pixels may not come from the file, of which OpenCV says nothing.

    Where the compressed data is damaged and ends before the picture, the decoder goes on with the colour it had, to the
    last block. With several scans, or with restarts, the end need not show it. A picture that is flat there is asked
    about in vain, which costs half as much again as decoding it.
    """
    facts = read_jpeg(data)
    if not facts.has_one_scan or facts.has_restarts or data.rfind(b"\xff\xd9", facts.scan_at) < 0:
        return True
    end = pixels[-1, -max(2, _FLAT_PX // reduction) :]
    return bool((end == end[0]).all())


def _find_reduction(shape_hw: tuple[int, int], least_size_wh: tuple[int, int]) -> int:
    """Give the largest reduction, of those there are, that leaves enough in both directions."""
    return next(
        by
        for by in _REDUCTIONS
        if by == 1 or all(-(-side // by) >= least for side, least in zip(shape_hw, least_size_wh[::-1], strict=True))
    )
