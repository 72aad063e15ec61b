"""Reads one fact from EXIF data: how the picture must be turned to stand upright; everything else in it is left alone.

Pillow's own EXIF reader parses every tag, warns about some damage and raises on other damage. A camera's broken
metadata is no reason to refuse its picture, so this reader looks for one tag and otherwise says "upright".
"""

from __future__ import annotations

import struct

_ORIENTATION_TAG = 0x0112
_TYPE_SHORT = 3


def read_orientation(exif: bytes) -> int:
    r"""Find the orientation tag (Exif 2.32, section 4.6.4) in the first directory of an EXIF block.

    Args:
        exif: the block with or without its leading ``Exif\0\0``; any bytes are allowed.

    Returns:
        1 to 8; 1 (upright) where the tag is missing, out of range or unreadable.
    """
    block = exif.removeprefix(b"Exif\0\0")
    byte_order = {b"II": "<", b"MM": ">"}.get(block[:2])
    if byte_order is None:
        return 1
    try:
        (directory,) = struct.unpack_from(byte_order + "I", block, 4)
        (entries,) = struct.unpack_from(byte_order + "H", block, directory)
        for entry in range(entries):
            tag, kind, count, value = struct.unpack_from(byte_order + "HHIH", block, directory + 2 + 12 * entry)
            if (tag, kind, count) == (_ORIENTATION_TAG, _TYPE_SHORT, 1):
                return value if 1 <= value <= 8 else 1  # noqa: PLR2004 -- the eight orientations of the standard
    except struct.error:
        return 1
    return 1
