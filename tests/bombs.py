"""Builds files that keep a decoder busy or fill its memory, each by one trick and as small as the trick allows.

The counts are arguments, so that a test can ask for a bomb that is just beyond a limit, and for one that would go off.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np
from PIL import Image

from tests.images import declare_bmp, declare_tiff, draw_part, encode

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"


def png_chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(*chunks, pixels=None):
    """A sound grey PNG of 4 x 4 pixels with these chunks in front of its pixels."""
    header = struct.pack(">IIBBBBB", 4, 4, 8, 0, 0, 0, 0)
    body = pixels if pixels is not None else png_chunk(b"IDAT", zlib.compress(bytes(4 * 5)))
    return PNG_MAGIC + png_chunk(b"IHDR", header) + b"".join(chunks) + body + png_chunk(b"IEND", b"")


def png_of_chunks(count, *, kind=b"teSt", body=b""):
    return png(png_chunk(kind, body) * count)


def png_of_empty_pixel_chunks(count):
    return png(pixels=png_chunk(b"IDAT", b"") * count + png_chunk(b"IDAT", zlib.compress(bytes(4 * 5))))


def png_of_packed_text(count, *, size_bytes=2**20, kind=b"zTXt"):
    """Each chunk unpacks to ``size_bytes`` of blanks; without a key Pillow does not count them."""
    return png_of_chunks(count, kind=kind, body=b"\0\0" + zlib.compress(b" " * size_bytes, 9))


def png_with_profile(size_bytes):
    """A colour profile that unpacks to so many bytes."""
    return png(png_chunk(b"iCCP", b"p\0\0" + zlib.compress(bytes(size_bytes), 9)))


def png_with_animation_header(*frame_counts):
    return png(*(png_chunk(b"acTL", struct.pack(">II", frames, 0)) for frames in frame_counts))


def png_of_blank_pixels(side):
    """Black pixels by the million in a few kilobytes."""
    return encode(Image.new("1", (side, side)), "PNG")


def jpeg_parts():
    """A progressive JPEG: what comes before its last scan, that scan, and the end."""
    data = encode(draw_part()[0], "JPEG", progressive=True, quality=80)
    last = data.rindex(b"\xff\xda")
    return data[:last], data[last:-2], data[-2:]


def jpeg_of_scans(count, *, width=None, height=None):
    """A progressive JPEG that repeats its last scan; it may declare another size."""
    before, scan, end = jpeg_parts()
    if width is not None:
        at = before.index(b"\xff\xc2") + 5
        before = before[:at] + struct.pack(">HH", height, width) + before[at + 4 :]
    return before + scan * count + end


def jpeg_with_segments(segment, count):
    """A sound JPEG with further segments right behind its beginning."""
    data = encode(draw_part()[0], "JPEG")
    return data[:2] + segment * count + data[2:]


def jpeg_segment(marker, body):
    return bytes((0xFF, marker)) + struct.pack(">H", len(body) + 2) + body


def tiff_directory(entries, *, tail=b"", order="<", room=0):
    """A TIFF of (tag, type, count, value) entries, taken as they are."""
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    body = b"".join(struct.pack(order + "HHII", *entry) for entry in entries)
    return head + struct.pack(order + "H", len(entries)) + body + bytes(4) + tail + bytes(room)


def tiff_of_tags(count):
    return tiff_directory([(tag % 65536, 3, 1, 1) for tag in range(count)])


def tiff_with_long_tag(values):
    """One tag lists ``values`` numbers, all of them there."""
    size = {256: 4, 257: 4, 258: 8, 259: 1, 262: 1, 278: 4, 279: 16}
    entries = sorted([(tag, 4, 1, value) for tag, value in size.items()] + [(273, 4, values, 200)])
    return tiff_directory(entries, room=200 + 4 * values)


def tiff_with_tiles(width, length):
    return declare_tiff(8, 8, t322=width, t323=length, t324=8, t325=100)


def tiff_with_tag_twice_as_wide(tag):
    """A tag that has one value by the standard, with two of them."""
    data = declare_tiff(8, 8, t274=1, t282=1, t283=1)
    at = data.index(struct.pack("<HHI", tag, 4, 1))
    return data[: at + 2] + struct.pack("<HI", 3, 2) + data[at + 8 :]


def bmp_of_runs(width, height, *, runs=b"\x01\x00", count=1):
    """A run-length encoded BMP of 8 bits."""
    data = encode(np.zeros((4, 4), dtype=np.uint8), "BMP")
    at = struct.unpack_from("<I", data, 10)[0]
    data = data[:30] + struct.pack("<I", 1) + data[34:at] + runs * count
    return data[:18] + struct.pack("<II", width, height) + data[26:]


def bmp_of_no_pixels():
    return declare_bmp(0, 5)
