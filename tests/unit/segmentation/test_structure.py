"""Files whose parts are too many: refused by name, and in no time."""

from __future__ import annotations

import struct
import time

import numpy as np
import pytest

from defectoscope.errors.images import ImageNotRecognised, ImageTooComplex, ImageTruncated, InvalidImage
from defectoscope.segmentation import decode_image, decode_label
from tests.bombs import (
    bmp_of_no_pixels,
    bmp_of_runs,
    jpeg_of_scans,
    jpeg_segment,
    jpeg_with_segments,
    png_of_chunks,
    png_of_empty_pixel_chunks,
    png_of_packed_text,
    png_with_animation_header,
    png_with_profile,
    tiff_of_tags,
    tiff_with_long_tag,
    tiff_with_tag_twice_as_wide,
    tiff_with_tiles,
)
from tests.images import declare_tiff, draw_part, encode, encode_turned

PART, _ = draw_part()
TABLE = jpeg_segment(0xDB, b"\0" + bytes(range(1, 65)))
BOMBS = {
    "png-of-empty-chunks": (lambda: png_of_chunks(1_000_000), "more chunks"),
    "png-of-empty-pixel-chunks": (lambda: png_of_empty_pixel_chunks(1_000_000), "more chunks"),
    "png-of-packed-text": (lambda: png_of_packed_text(2000), "more chunks"),
    "png-of-profiles": (lambda: png_of_packed_text(2000, kind=b"iCCP"), "more chunks"),
    "jpeg-of-scans": (lambda: jpeg_of_scans(5000), "more than 100 scans"),
    "jpeg-of-a-few-scans-over-many-pixels": (
        lambda: jpeg_of_scans(40, width=14_000, height=14_000),
        "more than 12 scans",
    ),
    "jpeg-of-fillers": (lambda: jpeg_with_segments(b"\xff", 10_000_000), "thousands of bytes between"),
    "jpeg-of-junk": (lambda: jpeg_with_segments(b"\xff\xfe\0\2" + bytes(10_000_000), 1), "thousands of bytes between"),
    "jpeg-of-comments": (lambda: jpeg_with_segments(jpeg_segment(0xFE, b""), 1_000_000), "segments in front"),
    "jpeg-of-tables": (lambda: jpeg_with_segments(TABLE, 100_000), "more than 64 segments of one kind"),
    "jpeg-of-exif": (
        lambda: jpeg_with_segments(jpeg_segment(0xE1, b"Exif\0\0" + bytes(60_000)), 1000),
        "more than 64 segments of one kind",
    ),
    "tiff-of-tags": (lambda: tiff_of_tags(60_000), "60000 tags"),
    "tiff-of-strips": (lambda: tiff_with_long_tag(2_000_000), "tag 273 of the TIFF has 2000000 values"),
    "tiff-of-a-vast-tile": (lambda: tiff_with_tiles(2**20, 2**20), "tiles of 1048576 x 1048576"),
    "bmp-of-wide-runs": (lambda: bmp_of_runs(200_000_000, 1), "run-length encoded"),
    "bmp-of-many-runs": (lambda: bmp_of_runs(64, 48, count=10_000_000), "run-length encoded"),
}


@pytest.mark.parametrize(("make", "words"), BOMBS.values(), ids=BOMBS.keys())
@pytest.mark.parametrize("decode", [decode_image, decode_label])
def test_a_bomb_is_refused_by_name_before_it_costs_anything(decode, make, words):
    data = make()
    began_s = time.process_time()

    with pytest.raises(InvalidImage if decode is decode_image else Exception, match=words) as refusal:
        decode(data)

    assert time.process_time() - began_s < 1
    assert refusal.value.details.get("reason", refusal.value.code) == ImageTooComplex.code


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(png_of_chunks(900), id="chunks"),
        pytest.param(png_of_packed_text(90, size_bytes=1000), id="packed-text"),
        pytest.param(png_with_profile(1000), id="profile"),
        pytest.param(jpeg_of_scans(20), id="scans"),
        pytest.param(jpeg_with_segments(b"\xff", 3000), id="fillers"),
        pytest.param(jpeg_with_segments(jpeg_segment(0xE1, b"FLIR\0" + bytes(1000)), 900), id="thermal-data"),
        pytest.param(jpeg_with_segments(jpeg_segment(0xFE, b"\xff\xda" * 5000), 3), id="comment-that-looks-like-scans"),
        pytest.param(bmp_of_runs(64, 48, runs=b"\x40\x07\0\0", count=48), id="runs"),
    ],
)
def test_many_parts_are_no_bomb(data):
    assert decode_image(data).pixels.size > 0


@pytest.mark.parametrize(
    ("data", "words"),
    [
        pytest.param(png_with_profile(50_000_000), "MAX_TEXT_CHUNK", id="png-profile-of-50-megabytes"),
        pytest.param(png_with_animation_header(0), "invalid animation header", id="png-animation-of-nothing"),
        pytest.param(png_with_animation_header(1, 1), "invalid animation header", id="png-two-animation-headers"),
        pytest.param(tiff_with_tag_twice_as_wide(274), "the tag 274 has 2 values", id="tiff-two-orientations"),
        pytest.param(tiff_with_tag_twice_as_wide(282), "the tag 282 has 2 values", id="tiff-two-resolutions"),
        pytest.param(b"II*\0" + struct.pack("<I", 2**31), "directory lies outside", id="tiff-directory-outside"),
        pytest.param(b"II+\0\x08\0\0\0" + b"\xff" * 8, "directory lies outside", id="large-tiff-directory-outside"),
        pytest.param(bmp_of_no_pixels(), "BMP data", id="bmp-of-no-width"),
        pytest.param(declare_tiff(0, 5), "TIFF data", id="tiff-of-no-width"),
    ],
)
def test_what_pillow_would_warn_about_is_damage(data, words):
    with pytest.raises(ImageTruncated, match=words):
        decode_image(data)


def test_a_tag_of_a_tiff_outside_the_file_is_damage():
    data = declare_tiff(8, 8)
    at = data.index(struct.pack("<HHII", 273, 4, 1, 8))

    with pytest.raises(ImageTruncated, match="the tag 273 lies outside the file"):
        decode_image(data[: at + 4] + struct.pack("<II", 50, 10_000) + data[at + 12 :])


def test_a_large_tiff_of_the_other_byte_order_is_not_recognised():
    with pytest.raises(ImageNotRecognised):
        decode_image(b"MM\0+\0\x08\0\0" + struct.pack(">Q", 16) + bytes(100))


def test_a_large_tiff_is_read():
    data = encode(PART, "TIFF", big_tiff=True)

    assert data.startswith(b"II+\0")
    np.testing.assert_array_equal(decode_image(data).pixels, PART)


def test_16_bits_where_0_is_white_are_turned_round():
    stored = np.array([[0, 257, 65535]], dtype="<u2")
    data = declare_tiff(3, 1, bits=16, t262=0, data=stored.tobytes())

    image = decode_image(data)

    assert image.pixels[0, :, 0].tolist() == [255, 254, 0]


def test_12_bits_reach_white_in_a_turned_image_too():
    data = declare_tiff(2, 1, bits=12, data=b"\xff\xf8\x00", t274=3)

    image = decode_image(data)

    assert image.pixels[0, :, 0].tolist() == [128, 255]


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "TIFF", "BMP", "WEBP"])
def test_the_walk_lets_ordinary_files_pass(image_format):
    turned = encode(PART, image_format) if image_format == "BMP" else encode_turned(PART, image_format, orientation=6)

    assert decode_image(turned).pixels.size == PART.size
