"""Decodes ordinary JPEG files by OpenCV, a third of the time and to the same bits; everything else as ``decode`` does.

Both libraries carry libjpeg-turbo; OpenCV writes RGB into one array where Pillow fills four bytes a pixel and converts.
A JPEG can also be had at a half, a quarter or an eighth of its size, which leaves most of the work out. Kept apart
from ``decode``, which runs where OpenCV is not installed.
"""

from __future__ import annotations

import cv2
import numpy as np
from PIL import Image, ImageFile

from defectoscope.segmentation.arrays import UInt8Array
from defectoscope.segmentation.decode import DecodedImage, decode_opened
from defectoscope.segmentation.image_file import DEFAULT_LIMITS, DecodeLimits, open_checked, read_turn

#: By how much a JPEG may be reduced while it is decoded, and what asks OpenCV for it.
_REDUCTIONS = {
    8: cv2.IMREAD_REDUCED_COLOR_8,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    1: cv2.IMREAD_COLOR,
}

#: Turns that swap width and height.
_QUARTER_TURNS = frozenset(
    {Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_270, Image.Transpose.TRANSPOSE, Image.Transpose.TRANSVERSE}
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
    file = open_checked(data, limits=limits)
    # CMYK has no one formula, so that it stays with Pillow's.
    if file.format != "JPEG" or file.mode not in {"RGB", "L"}:
        return decode_opened(file)
    turn = read_turn(file)
    least_wh = least_size_wh or file.size
    stored_least_wh = least_wh[::-1] if turn in _QUARTER_TURNS else least_wh
    pixels = _decode_jpeg(data, file, reduction=_find_reduction(file.size, stored_least_wh))
    if pixels is None:
        # What OpenCV refuses Pillow judges, and names.
        return decode_opened(file)
    width, height = file.size if turn not in _QUARTER_TURNS else file.size[::-1]
    if turn is not None:
        pixels = np.array(Image.fromarray(pixels).transpose(turn))
    return DecodedImage(pixels=pixels, shape_hw=(height, width), format="JPEG", source_mode=file.mode)


def _find_reduction(size_wh: tuple[int, int], least_wh: tuple[int, int]) -> int:
    return next(
        by
        for by in _REDUCTIONS
        if by == 1 or all(-(-size // by) >= least for size, least in zip(size_wh, least_wh, strict=True))
    )


def _decode_jpeg(data: bytes, file: ImageFile.ImageFile, *, reduction: int) -> UInt8Array | None:
    # The reductions ask for BGR by the same bit as IMREAD_COLOR, which must not stand beside that for RGB.
    flags = _REDUCTIONS[reduction] & ~cv2.IMREAD_COLOR | cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        decoded = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), flags)
    except cv2.error:
        return None
    width, height = file.size
    if decoded is None or decoded.shape != (-(-height // reduction), -(-width // reduction), 3):
        return None
    return np.asarray(decoded, dtype=np.uint8)
