"""Stores masks as PNG and reads them back; the bytes depend only on the mask, so their hash names it.

A predicted mask has two values and takes one bit a pixel. A class mask has three and is stored as grey, with a text
chunk that says so: without it, a label of 0 and 255 could mean defects as well as ignored pixels.
"""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image, PngImagePlugin

from defectoscope.errors.images import LabelValuesUnknown
from defectoscope.segmentation.arrays import UInt8Array
from defectoscope.segmentation.decode import CLASS_MASK_KEY, CLASS_MASK_VALUE, decode_label

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def encode_mask(mask: UInt8Array) -> bytes:
    """Encode a mask without loss.

    Written here, and not by a library, for its speed: the whole picture is handed to zlib at once, where OpenCV's and
    Pillow's encoders go row by row and take five times as long for the same bytes. Masks are long runs, of which
    zlib's run lengths make the most; see the PNG specification (W3C, third edition), chapters 5, 7 and 11.

    Args:
        mask: (H, W) uint8; anything but 0 is defect.

    Returns:
        A PNG of one bit per pixel, white for defect.
    """
    height, width = mask.shape
    packed = np.packbits(mask, axis=1)
    # Before the bits of each row stands the number of its filter, 0 for none.
    rows = np.zeros((height, 1 + packed.shape[1]), dtype=np.uint8)
    rows[:, 1:] = packed
    zlib_stream = zlib.compressobj(strategy=zlib.Z_RLE)
    pixels = zlib_stream.compress(rows.data) + zlib_stream.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)  # one bit of grey, not interlaced
    return _PNG_SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", pixels) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(data, zlib.crc32(kind)))


def decode_mask(data: bytes) -> UInt8Array:
    """Decode a mask.

    Args:
        data: a PNG from ``encode_mask``, or any label that ``decode_label`` accepts.

    Returns:
        (H, W) uint8, 0 background and 255 defect; what a label ignores is background here.

    Raises:
        InvalidLabel: the file cannot be decoded.
    """
    return np.where(decode_label(data) == 1, np.uint8(255), np.uint8(0))


def encode_class_mask(class_mask: UInt8Array) -> bytes:
    """Encode a class mask without loss, in the one form that `decode_label` never has to guess.

    Args:
        class_mask: (H, W) uint8, 0 background, 1 defect, 255 ignored.

    Returns:
        A PNG of 8-bit grey that holds these very values.

    Raises:
        LabelValuesUnknown: the class mask holds another value.
    """
    if not np.isin(class_mask, (0, 1, 255)).all():
        raise LabelValuesUnknown
    text = PngImagePlugin.PngInfo()
    text.add_text(CLASS_MASK_KEY, CLASS_MASK_VALUE)
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(class_mask)).save(file, "PNG", compress_level=6, pnginfo=text)
    return file.getvalue()
