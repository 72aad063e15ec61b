"""Decodes ordinary JPEG files by OpenCV, a third of the time and to the same bits; everything else as ``decode`` does.

Both libraries carry libjpeg-turbo; OpenCV writes RGB into one array where Pillow fills four bytes a pixel and converts.
A JPEG can also be had at a half, a quarter or an eighth of its size, which leaves most of the work out. Kept apart
from ``decode``, which runs where OpenCV is not installed.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image, ImageFile

from defectoscope.segmentation.arrays import UInt8Array
from defectoscope.segmentation.decode import DecodedImage, decode_opened
from defectoscope.segmentation.image_file import DEFAULT_LIMITS, DecodeLimits, open_checked, read_shape_hw, read_turn

#: By how much a JPEG may be reduced while it is decoded, and what asks OpenCV for it.
_REDUCTIONS = {
    8: cv2.IMREAD_REDUCED_COLOR_8,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    1: cv2.IMREAD_COLOR,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedImage:
    """A file whose header was read and found in order; its pixels are still to be decoded.

    Attributes:
        data: the whole file.
        shape_hw: height and width of the image in pixels, upright.
        format: "PNG", "JPEG", "TIFF", "BMP" or "WEBP", from the content.
        source_mode: Pillow's mode of the stored pixels.
    """

    data: bytes
    shape_hw: tuple[int, int]
    format: str
    source_mode: str
    _file: ImageFile.ImageFile

    def decode(self, *, least_size_wh: tuple[int, int] | None = None) -> DecodedImage:
        """Decode the pixels; see `decode_quickly`.

        Raises:
            InvalidImage: the pixels are damaged; the error says how.
        """
        file = self._file
        # CMYK has no one formula, so that it stays with Pillow's.
        if file.format != "JPEG" or file.mode not in {"RGB", "L"}:
            return decode_opened(file)
        pixels = _decode_jpeg(self.data, self.shape_hw, least_size_wh=least_size_wh, turn=read_turn(file))
        if pixels is None:
            # What OpenCV refuses Pillow judges, and names.
            return decode_opened(file)
        return DecodedImage(pixels=pixels, shape_hw=self.shape_hw, format="JPEG", source_mode=file.mode)


def open_image(data: bytes, *, limits: DecodeLimits = DEFAULT_LIMITS) -> OpenedImage:
    """Check an image file as far as its header goes.

    Args:
        data: the whole file.
        limits: what it may weigh.

    Raises:
        InvalidImage: as `decode_image` before it decodes a pixel.
    """
    file = open_checked(data, limits=limits)
    return OpenedImage(
        data=data, shape_hw=read_shape_hw(file), format=str(file.format), source_mode=file.mode, _file=file
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
        InvalidImage: as `decode_image`.
    """
    return open_image(data, limits=limits).decode(least_size_wh=least_size_wh)


def _decode_jpeg(
    data: bytes,
    shape_hw: tuple[int, int],
    *,
    least_size_wh: tuple[int, int] | None,
    turn: Image.Transpose | None,
) -> UInt8Array | None:
    """Give (H, W, 3) uint8 RGB, upright and perhaps reduced; None where OpenCV cannot read the file."""
    reduction = 1 if least_size_wh is None else _find_reduction(shape_hw, least_size_wh)
    # The reductions ask for BGR by the same bit as IMREAD_COLOR, which must not stand beside that for RGB.
    flags = _REDUCTIONS[reduction] & ~cv2.IMREAD_COLOR | cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        decoded = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), flags)
    except cv2.error:
        return None
    if decoded is None:
        return None
    pixels = np.asarray(decoded, dtype=np.uint8)
    if turn is not None:
        pixels = np.array(Image.fromarray(pixels).transpose(turn))
    return pixels if pixels.shape == (*(-(-side // reduction) for side in shape_hw), 3) else None


def _find_reduction(shape_hw: tuple[int, int], least_size_wh: tuple[int, int]) -> int:
    """Give the largest reduction, of those there are, that leaves enough in both directions."""
    return next(
        by
        for by in _REDUCTIONS
        if by == 1 or all(-(-side // by) >= least for side, least in zip(shape_hw, least_size_wh[::-1], strict=True))
    )
