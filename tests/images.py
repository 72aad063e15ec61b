"""Draws the small images that the tests need, each by code and from a seed; no image file is kept in the repository.

Good images come from `draw_part` and `encode`; the functions below them build files that are broken, huge or foreign in
one stated way.
"""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image

ORIENTATION_TAG = 274


def draw_part(*, height=48, width=64, seed=0, with_defect=True):
    """A machined surface, with a dark scratch if wanted: (H, W, 3) uint8 RGB and its class mask (H, W) of 0 and 1."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    grey = 150 + 20 * np.sin(x / 5) + rng.normal(0, 4, (height, width))
    class_mask = np.zeros((height, width), dtype=np.uint8)
    if with_defect:
        class_mask[np.abs(y - height / 2 - (x - width / 2) / 3) < max(1, height / 16)] = 1
    grey = np.where(class_mask == 1, grey - 90, grey)
    tint = np.array([1.0, 0.97, 0.9])
    return np.clip(np.rint(grey[:, :, np.newaxis] * tint), 0, 255).astype(np.uint8), class_mask


def encode(pixels, image_format, *, mode=None, **options):
    """Save an array (or a Pillow image) in a format, after conversion to a Pillow mode if one is given."""
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    file = io.BytesIO()
    (image.convert(mode) if mode else image).save(file, image_format, **options)
    return file.getvalue()


def encode_turned(pixels, image_format, *, orientation, **options):
    """Save with an EXIF orientation of 1 to 8."""
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = orientation
    return encode(pixels, image_format, exif=exif if image_format == "TIFF" else exif.tobytes(), **options)


def encode_frames(image_format, *, frames=3):
    """An animation or a file of several pages; every frame differs, so that no encoder merges them."""
    pages = [Image.new("RGB", (16, 12), (40 * number, 10, 200)) for number in range(frames)]
    return encode(pages[0], image_format, save_all=True, append_images=pages[1:])


def _png_chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def declare_png(width, height):
    """A sound PNG of one row of data that declares any size."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + _png_chunk(b"IHDR", header)
        + _png_chunk(b"IDAT", zlib.compress(bytes(100)))
        + _png_chunk(b"IEND", b"")
    )


def declare_jpeg(width, height):
    """A JPEG of 8 x 8 pixels whose frame header declares any size up to 65535."""
    data = encode(np.zeros((8, 8, 3), dtype=np.uint8), "JPEG")
    position = data.index(b"\xff\xc0") + 5
    return data[:position] + struct.pack(">HH", height, width) + data[position + 4 :]


def declare_bmp(width, height):
    """A BMP of 8 x 8 pixels whose header declares any size."""
    data = encode(np.zeros((8, 8, 3), dtype=np.uint8), "BMP")
    return data[:18] + struct.pack("<II", width, height) + data[26:]


def declare_webp(width, height):
    """The header of an extended WebP that declares a canvas of any size up to 2**24, with nothing behind it."""
    body = b"\0\0\0\0" + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    chunk = b"VP8X" + struct.pack("<I", len(body)) + body
    return b"RIFF" + struct.pack("<I", 4 + len(chunk)) + b"WEBP" + chunk


def write_tiff(tags, *, data=b""):
    """A little-endian TIFF of one directory: ``tags`` maps a tag to a value of one LONG; ``data`` follows at byte 8."""
    directory = 8 + len(data) + len(data) % 2
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags.items()))
    return (
        struct.pack("<2sHI", b"II", 42, directory)
        + data.ljust(directory - 8, b"\0")
        + struct.pack("<H", len(tags))
        + entries
        + struct.pack("<I", 0)
    )


def declare_tiff(width, height, *, bits=8, data=bytes(100), **tags):
    """An uncompressed grey TIFF with any declared size and any data; ``tags`` as ``t284=2``."""
    facts = {256: width, 257: height, 258: bits, 259: 1, 262: 1, 273: 8, 277: 1, 278: height, 279: len(data)}
    return write_tiff(facts | {int(name[1:]): value for name, value in tags.items()}, data=data)
