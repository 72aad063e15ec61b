from __future__ import annotations

import concurrent.futures
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from defectoscope.errors.images import (
    ImageEmpty,
    ImageMultiFrame,
    ImageNotRecognised,
    ImageTooLarge,
    ImageTruncated,
    InvalidImage,
)
from defectoscope.segmentation import DecodeLimits, decode_image
from tests.images import (
    declare_bmp,
    declare_jpeg,
    declare_png,
    declare_tiff,
    declare_webp,
    draw_part,
    encode,
    encode_frames,
    encode_turned,
)

PART, _ = draw_part()


@pytest.mark.parametrize(
    ("image_format", "options"),
    [
        pytest.param("PNG", {}, id="png"),
        pytest.param("TIFF", {}, id="tiff"),
        pytest.param("TIFF", {"compression": "tiff_lzw"}, id="tiff-lzw"),
        pytest.param("TIFF", {"compression": "tiff_adobe_deflate"}, id="tiff-deflate"),
        pytest.param("BMP", {}, id="bmp"),
        pytest.param("WEBP", {"lossless": True}, id="webp-lossless"),
    ],
)
def test_a_lossless_format_gives_back_every_pixel(image_format, options):
    data = encode(PART, image_format, **options)

    image = decode_image(data)

    assert image.format == image_format
    assert image.source_mode == "RGB"
    assert image.shape_hw == PART.shape[:2]
    assert image.pixels.dtype == np.uint8
    assert image.pixels.flags.c_contiguous
    assert image.pixels.flags.writeable
    np.testing.assert_array_equal(image.pixels, PART)


@pytest.mark.parametrize("image_format", ["JPEG", "WEBP"])
def test_a_lossy_format_gives_back_nearly_every_pixel(image_format):
    image = decode_image(encode(PART, image_format, quality=95))

    assert image.format == image_format
    assert np.abs(image.pixels.astype(int) - PART).mean() < 4


GREY = np.arange(256, dtype=np.uint8).reshape(16, 16)


@pytest.mark.parametrize(
    ("data", "source_mode", "expected"),
    [
        pytest.param(encode(GREY, "PNG"), "L", np.dstack([GREY] * 3), id="grey"),
        pytest.param(encode(GREY, "PNG", mode="LA"), "LA", np.dstack([GREY] * 3), id="grey-alpha"),
        pytest.param(encode(PART, "PNG", mode="RGBA"), "RGBA", PART, id="opaque-alpha"),
        pytest.param(encode(np.dstack([PART, PART[:, :, 0]]), "PNG"), "RGBA", PART, id="alpha-is-dropped"),
        pytest.param(
            encode(Image.new("1", (3, 2), 1), "PNG"), "1", np.full((2, 3, 3), 255, dtype=np.uint8), id="one-bit"
        ),
        pytest.param(
            encode(Image.new("CMYK", (3, 2), (255, 0, 0, 0)), "TIFF"),
            "CMYK",
            np.full((2, 3, 3), (0, 255, 255), dtype=np.uint8),
            id="cmyk",
        ),
        pytest.param(
            encode(Image.fromarray(GREY).convert("P"), "PNG", transparency=bytes(range(256))),
            "P",
            np.dstack([GREY] * 3),
            id="palette-with-transparency",
        ),
    ],
)
def test_every_mode_becomes_rgb(data, source_mode, expected):
    image = decode_image(data)

    assert image.source_mode == source_mode
    np.testing.assert_array_equal(image.pixels, expected)


DEEP = np.array([[0, 1, 128, 129, 256, 257], [32768, 32896, 65278, 65279, 65534, 65535]], dtype=np.uint16)
DEEP_AS_8_BITS = np.array([[0, 0, 0, 1, 1, 1], [128, 128, 254, 254, 255, 255]], dtype=np.uint8)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(encode(DEEP, "PNG"), id="png"),
        pytest.param(encode(DEEP, "TIFF"), id="tiff"),
        pytest.param(encode(DEEP, "TIFF", compression="tiff_lzw"), id="tiff-lzw"),
        pytest.param(encode(DEEP.astype(">u2"), "TIFF"), id="tiff-big-endian"),
        pytest.param(encode(DEEP.astype(np.int32), "TIFF"), id="32-bit-integers-within-16-bits"),
    ],
)
def test_16_bit_grey_is_scaled_and_never_clipped(data):
    image = decode_image(data)

    assert image.source_mode.startswith("I")
    np.testing.assert_array_equal(image.pixels, np.dstack([DEEP_AS_8_BITS] * 3))


def test_12_bit_grey_reaches_white():
    # Two pixels of 12 bits in three bytes: 0xFFF and 0x800.
    data = declare_tiff(2, 1, bits=12, data=b"\xff\xf8\x00")

    image = decode_image(data)

    assert image.pixels[0, :, 0].tolist() == [255, 128]


def test_16_bit_colour_keeps_the_high_byte():
    header = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)
    row = b"\0" + struct.pack(">HHH", 0, 32896, 65535)
    data = b"\x89PNG\r\n\x1a\n"
    for kind, body in ((b"IHDR", header), (b"IDAT", zlib.compress(row)), (b"IEND", b"")):
        data += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    image = decode_image(data)

    assert image.pixels[0, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_image_is_put_upright(image_format, orientation):
    # Blocks of 16 pixels, so that JPEG's own blocks leave the colours alone.
    upright = np.kron(np.array([[10, 120, 60], [200, 30, 250]], dtype=np.uint8), np.ones((16, 16), dtype=np.uint8))
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: np.rot90(upright),
        7: upright[::-1, ::-1].T,
        8: np.rot90(upright, -1),
    }[orientation]
    data = encode_turned(np.dstack([stored] * 3), image_format, orientation=orientation)

    image = decode_image(data)

    assert image.shape_hw == (32, 48)
    np.testing.assert_allclose(image.pixels[8::16, 8::16, 0], upright[8::16, 8::16], atol=3)


@pytest.mark.parametrize(
    "exif",
    [
        pytest.param(b"Exif\0\0", id="nothing"),
        pytest.param(b"Exif\0\0garbage that is no TIFF", id="no-header"),
        pytest.param(b"Exif\0\0II*\0\xff\xff\xff\xff", id="directory-beyond-the-end"),
        pytest.param(b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + bytes(30), id="too-many-entries"),
        pytest.param(
            b"Exif\0\0II*\0\x08\0\0\0\x01\0" + struct.pack("<HHIHH", 274, 3, 1, 77, 0), id="orientation-out-of-range"
        ),
        pytest.param(
            b"Exif\0\0MM\0*\0\0\0\x08\0\x01" + struct.pack(">HHII", 282, 5, 1, 0xFFFFFF00), id="offset-beyond-the-end"
        ),
    ],
)
@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP"])
def test_damaged_metadata_does_not_spoil_the_picture(image_format, exif):
    data = encode(PART, image_format, exif=exif)

    image = decode_image(data)

    assert image.shape_hw == PART.shape[:2]


def test_the_name_of_a_format_is_not_asked():
    # Nothing but the content is handed over, so a PNG named .jpg is a PNG.
    assert decode_image(encode(PART, "PNG")).format == "PNG"


@pytest.mark.parametrize(
    ("data", "error", "words"),
    [
        pytest.param(b"", ImageEmpty, "empty", id="empty"),
        pytest.param(b"part number;verdict\n17;ok\n", ImageNotRecognised, "accepted format", id="text"),
        pytest.param(b"BM is how this text begins, by chance.", ImageNotRecognised, "accepted format", id="bm-text"),
        pytest.param(bytes(1000), ImageNotRecognised, "accepted format", id="zeros"),
        pytest.param(encode(PART, "GIF"), ImageNotRecognised, "accepted format", id="gif"),
        pytest.param(encode(PART, "PPM"), ImageNotRecognised, "accepted format", id="ppm"),
        pytest.param(b"%!PS-Adobe-3.0 EPSF-3.0\n", ImageNotRecognised, "accepted format", id="eps"),
        pytest.param(encode_frames("GIF"), ImageNotRecognised, "accepted format", id="animated-gif"),
        pytest.param(encode_frames("WEBP"), ImageMultiFrame, "one image per file", id="animated-webp"),
        pytest.param(encode_frames("PNG"), ImageMultiFrame, "one image per file", id="apng"),
        pytest.param(encode_frames("TIFF"), ImageMultiFrame, "one image per file", id="multi-page-tiff"),
        pytest.param(b"\x89PNG\r\n\x1a\nno chunks follow", ImageTruncated, "PNG data", id="png-garbage"),
        pytest.param(b"\xff\xd8\xff\xe0no segments follow", ImageTruncated, "JPEG data", id="jpeg-garbage"),
        pytest.param(b"II*\0\xff\xff\xff\x7f", ImageTruncated, "TIFF data", id="tiff-garbage"),
        pytest.param(b"RIFF\x10\0\0\0WEBPVP8 \x04\0\0\0abcd", ImageTruncated, "WEBP data", id="webp-garbage"),
        pytest.param(declare_tiff(8, 8, bits=64), ImageNotRecognised, "kind of TIFF", id="unknown-tiff-depth"),
        pytest.param(declare_tiff(8, 8, t278=2), ImageTruncated, "strips are missing", id="tiff-lacking-strips"),
        pytest.param(
            encode(np.array([[0, 65536]], dtype=np.int32), "TIFF"), ImageNotRecognised, "32-bit", id="32-bit-integers"
        ),
        pytest.param(
            encode(np.array([[-1, 5]], dtype=np.int32), "TIFF"), ImageNotRecognised, "32-bit", id="negative-integers"
        ),
        pytest.param(
            encode(np.array([[0.0, 0.5]], dtype=np.float32), "TIFF"), ImageNotRecognised, "floating-point", id="floats"
        ),
        pytest.param(encode(Image.new("LAB", (4, 4)), "TIFF"), ImageNotRecognised, "L\\*a\\*b\\*", id="lab"),
    ],
)
def test_a_bad_file_gives_its_own_error(data, error, words):
    with pytest.raises(error, match=words) as caught:
        decode_image(data)

    assert type(caught.value) is error


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9])
@pytest.mark.parametrize(
    ("image_format", "options"),
    [
        pytest.param("PNG", {}, id="png"),
        pytest.param("JPEG", {}, id="jpeg"),
        pytest.param("TIFF", {}, id="tiff"),
        pytest.param("TIFF", {"compression": "tiff_lzw"}, id="tiff-lzw"),
        pytest.param("BMP", {}, id="bmp"),
        pytest.param("WEBP", {}, id="webp"),
        pytest.param("WEBP", {"lossless": True}, id="webp-lossless"),
    ],
)
def test_a_file_cut_short_is_truncated(image_format, options, share):
    data = encode(PART, image_format, **options)

    with pytest.raises(ImageTruncated, match=f"{image_format} data ends early or is damaged"):
        decode_image(data[: max(20, int(len(data) * share))])


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(declare_png(30_000, 30_000), id="png"),
        pytest.param(declare_jpeg(30_000, 30_000), id="jpeg"),
        pytest.param(declare_tiff(30_000, 30_000), id="tiff"),
        pytest.param(declare_bmp(30_000, 30_000), id="bmp"),
        pytest.param(declare_webp(30_000, 30_000), id="webp"),
        pytest.param(declare_png(2**31 - 1, 2**31 - 1), id="png-of-the-largest-size"),
    ],
)
def test_a_huge_declared_size_is_too_large(data):
    with pytest.raises(ImageTooLarge, match=r"declares \d+ x \d+ pixels; at most 200000000") as caught:
        decode_image(data)

    assert caught.value.details["max_pixels"] == 200_000_000


def test_refusing_a_huge_declared_size_takes_no_memory():
    # A process of its own, because the peak of this one was set by other tests.
    program = """
import resource
from defectoscope.errors.images import ImageTooLarge
from defectoscope.segmentation import decode_image
from tests.images import declare_bmp, declare_jpeg, declare_png, declare_tiff, declare_webp
files = [declare(30_000, 30_000) for declare in (declare_bmp, declare_jpeg, declare_png, declare_tiff, declare_webp)]
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for file in files:
    try:
        decode_image(file)
    except ImageTooLarge:
        print("refused")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""

    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)

    *refused, grown_kib = output.stdout.split()
    assert refused == ["refused"] * 5
    assert int(grown_kib) < 20 * 1024


def test_both_limits_can_be_chosen():
    data = encode(PART, "PNG")

    with pytest.raises(ImageTooLarge, match="bytes"):
        decode_image(data, limits=DecodeLimits(max_bytes=len(data) - 1))
    with pytest.raises(ImageTooLarge, match="pixels"):
        decode_image(data, limits=DecodeLimits(max_pixels=48 * 64 - 1))
    exact = decode_image(data, limits=DecodeLimits(max_bytes=len(data), max_pixels=48 * 64))
    assert exact.shape_hw == (48, 64)


def test_the_decoder_gives_the_same_pixels_in_many_threads():
    parts = [draw_part(seed=seed)[0] for seed in range(8)]
    formats = ("PNG", "TIFF", "BMP", "PNG")
    files = [(index, encode(part, formats[index % 4])) for index, part in enumerate(parts)] * 20
    bad = encode(PART, "JPEG")[:300]

    def decode(numbered):
        index, data = numbered
        with pytest.raises(ImageTruncated):
            decode_image(bad)
        return bool((decode_image(data).pixels == parts[index]).all())

    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        results = list(threads.map(decode, files))

    assert results == [True] * 160


def test_pillows_own_limit_is_left_as_it_was():
    before = Image.MAX_IMAGE_PIXELS

    decode_image(encode(PART, "PNG"))

    assert before == Image.MAX_IMAGE_PIXELS == 1024**3 // 4 // 3


SOUND = [
    encode_turned(PART, "PNG", orientation=6),
    encode_turned(PART, "JPEG", orientation=6),
    encode_turned(PART, "TIFF", orientation=6),
    encode(PART, "TIFF", compression="tiff_adobe_deflate"),
    encode(PART, "BMP"),
    encode(PART, "WEBP"),
]


@settings(max_examples=400, deadline=None)
@given(
    file=st.sampled_from(SOUND),
    edits=st.lists(st.tuples(st.integers(0, 400), st.binary(max_size=4)), min_size=1, max_size=6),
    cut=st.integers(0, 20_000),
)
def test_a_damaged_file_decodes_or_gives_an_image_error(file, edits, cut):
    damaged = bytearray(file)
    for position, replacement in edits:
        damaged[position : position + len(replacement)] = replacement
    limits = DecodeLimits(max_pixels=2**20)

    try:
        image = decode_image(bytes(damaged[: len(damaged) - cut % len(damaged)]), limits=limits)
    except InvalidImage as error:
        assert error.message.endswith(".")  # noqa: PT017 -- either outcome is right, and both are checked
    else:
        assert image.pixels.shape[2] == 3
        assert image.pixels.shape[0] * image.pixels.shape[1] <= 2**20
