from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from defectoscope.errors import InvalidLabel
from defectoscope.segmentation import DecodeLimits, decode_label
from tests.images import declare_png, draw_part, encode, encode_frames, encode_turned

_, TRUTH = draw_part()


def paint_palette(indexes, colours):
    image = Image.fromarray(indexes.astype(np.uint8)).convert("P")
    image.frombytes(indexes.astype(np.uint8).tobytes())
    image.putpalette([channel for colour in colours for channel in colour])
    return image


BLACK = (0, 0, 0)
COLOURED = np.where(TRUTH[:, :, np.newaxis] == 1, np.array([0, 200, 30]), np.array([50, 12, 0])).astype(np.uint8)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(encode(TRUTH, "PNG"), id="0-and-1"),
        pytest.param(encode(TRUTH * np.uint8(255), "PNG"), id="0-and-255"),
        pytest.param(encode(TRUTH * np.uint8(255), "PNG", mode="1"), id="one-bit"),
        pytest.param(encode(TRUTH * np.uint8(255), "BMP"), id="bmp"),
        pytest.param(encode(TRUTH * np.uint8(255), "TIFF", mode="1", compression="group4"), id="fax-tiff"),
        pytest.param(encode(TRUTH * np.uint8(255), "JPEG", quality=95), id="jpeg-with-its-noise"),
        pytest.param(encode(TRUTH * np.uint8(1) + np.uint8(50), "PNG"), id="grey-50-and-51"),
        pytest.param(encode(TRUTH * np.uint8(255), "PNG", mode="LA"), id="grey-alpha"),
        pytest.param(encode(COLOURED, "PNG"), id="colour-on-near-black"),
        pytest.param(encode(COLOURED, "PNG", mode="RGBA"), id="colour-with-alpha"),
        pytest.param(encode(TRUTH.astype(np.uint16), "PNG"), id="16-bit-0-and-1"),
        pytest.param(encode(TRUTH.astype(np.uint16) * 255, "PNG"), id="16-bit-0-and-255"),
        pytest.param(encode(TRUTH.astype(np.uint16) * 65535, "PNG"), id="16-bit-0-and-65535"),
        pytest.param(encode(paint_palette(TRUTH, [BLACK, (128, 0, 0)]), "PNG"), id="voc-palette"),
        pytest.param(encode(paint_palette(TRUTH, [BLACK, (1, 1, 1)]), "PNG"), id="palette-of-class-numbers"),
        pytest.param(encode(paint_palette(TRUTH * 2, [BLACK, BLACK, BLACK]), "PNG"), id="palette-all-black"),
        pytest.param(encode(paint_palette(1 - TRUTH, [(255, 255, 255), BLACK]), "PNG"), id="palette-white-first"),
        pytest.param(encode_turned(np.rot90(TRUTH * np.uint8(255)), "PNG", orientation=6), id="turned"),
    ],
)
def test_every_common_kind_of_label_gives_the_same_class_mask(data):
    class_mask = decode_label(data)

    assert class_mask.dtype == np.uint8
    np.testing.assert_array_equal(class_mask, TRUTH)


@pytest.mark.parametrize(
    ("pixel", "expected"),
    [
        pytest.param((0, 0, 0), 0, id="black"),
        pytest.param((50, 50, 50), 0, id="all-channels-at-50"),
        pytest.param((51, 0, 0), 1, id="red-above-50"),
        pytest.param((0, 51, 0), 1, id="green-above-50"),
        pytest.param((0, 0, 51), 1, id="blue-above-50"),
    ],
)
def test_a_colour_is_background_when_no_channel_is_above_50(pixel, expected):
    data = encode(np.full((2, 3, 3), pixel, dtype=np.uint8), "PNG")

    class_mask = decode_label(data)

    np.testing.assert_array_equal(class_mask, np.full((2, 3), expected))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(b"", "image_empty", id="empty"),
        pytest.param(b"not a label", "image_not_recognised", id="text"),
        pytest.param(encode(TRUTH, "GIF"), "image_not_recognised", id="gif"),
        pytest.param(encode(TRUTH, "PNG")[:60], "image_truncated", id="truncated"),
        pytest.param(encode_frames("TIFF"), "image_multi_frame", id="multi-page"),
        pytest.param(declare_png(30_000, 30_000), "image_too_large", id="huge"),
        pytest.param(encode(TRUTH.astype(np.float32), "TIFF"), "image_not_recognised", id="floats"),
    ],
)
def test_what_cannot_be_decoded_is_an_invalid_label(data, reason):
    with pytest.raises(InvalidLabel, match=r"^The label cannot be read: .+\.$") as caught:
        decode_label(data)

    assert caught.value.details == {"reason": reason}


@pytest.mark.parametrize(
    ("image_format", "options"),
    [pytest.param("PNG", {}, id="png"), pytest.param("TIFF", {"compression": "group4"}, id="tiff")],
)
def test_our_own_pixel_limit_counts_and_not_pillows(image_format, options):
    # 180 million pixels: Pillow's Image.open raises above 178.9 million, and warns above 89.5 million.
    data = encode(Image.new("1", (18_000, 10_000)), image_format, **options)

    class_mask = decode_label(data, limits=DecodeLimits(max_pixels=180_000_000))

    assert class_mask.shape == (10_000, 18_000)
    with pytest.raises(InvalidLabel, match="at most 179999999"):
        decode_label(data, limits=DecodeLimits(max_pixels=179_999_999))
