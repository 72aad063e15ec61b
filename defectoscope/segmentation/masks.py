"""Stores a mask as a 1-bit PNG and reads it back; the bytes depend only on the mask, so their hash names it."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from defectoscope.segmentation.arrays import UInt8Array
from defectoscope.segmentation.decode import decode_label


def encode_mask(mask: UInt8Array) -> bytes:
    """Encode a mask without loss.

    Args:
        mask: (H, W) uint8; anything but 0 is defect.

    Returns:
        A PNG of one bit per pixel, white for defect.
    """
    height, width = mask.shape
    bits = np.packbits(mask != 0, axis=1)
    file = io.BytesIO()
    Image.frombytes("1", (width, height), bits.tobytes()).save(file, "PNG", compress_level=6)
    return file.getvalue()


def decode_mask(data: bytes) -> UInt8Array:
    """Decode a mask.

    Args:
        data: a PNG from ``encode_mask``, or any label that ``decode_label`` accepts.

    Returns:
        (H, W) uint8, 0 background and 255 defect.

    Raises:
        InvalidLabel: the file cannot be decoded.
    """
    return decode_label(data) * np.uint8(255)
