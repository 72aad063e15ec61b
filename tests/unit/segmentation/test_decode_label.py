from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, PngImagePlugin

from defectoscope.errors.images import InvalidLabel, LabelValuesUnknown
from defectoscope.segmentation import (
    DecodeLimits,
    count_pixels,
    decode_index_label,
    decode_label,
    decode_mask,
    encode_class_mask,
)
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


WITH_IGNORED = TRUTH.copy()
WITH_IGNORED[:, :9] = 255

CLASS_MASKS = hnp.array_shapes(min_dims=2, max_dims=2, max_side=24).flatmap(
    lambda shape: hnp.arrays(np.uint8, shape, elements=st.sampled_from([0, 1, 255]))
)


@given(class_mask=CLASS_MASKS)
def test_the_canonical_form_keeps_every_class_mask(class_mask):
    data = encode_class_mask(class_mask)

    np.testing.assert_array_equal(decode_label(data), class_mask)
    np.testing.assert_array_equal(decode_index_label(data), class_mask)


def test_the_canonical_form_is_grey_with_the_values_themselves():
    with Image.open(io.BytesIO(encode_class_mask(WITH_IGNORED))) as image:
        assert (image.format, image.mode) == ("PNG", "L")
        np.testing.assert_array_equal(np.asarray(image), WITH_IGNORED)


def test_another_value_has_no_canonical_form():
    with pytest.raises(LabelValuesUnknown):
        encode_class_mask(np.full((2, 2), 2, dtype=np.uint8))


def test_a_file_that_says_it_holds_classes_and_holds_others_is_refused():
    text = PngImagePlugin.PngInfo()
    with Image.open(io.BytesIO(encode_class_mask(TRUTH))) as image:
        for key, value in image.info.items():
            text.add_text(key, value)
    data = encode(TRUTH * np.uint8(7), "PNG", pnginfo=text)

    with pytest.raises(LabelValuesUnknown, match="holds the values 7;"):
        decode_label(data)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(encode(WITH_IGNORED, "PNG"), id="grey"),
        pytest.param(encode(WITH_IGNORED, "PNG", mode="LA"), id="grey-alpha"),
        pytest.param(encode(WITH_IGNORED, "TIFF"), id="tiff"),
        pytest.param(encode(WITH_IGNORED.astype(np.uint16), "PNG"), id="16-bit"),
        pytest.param(
            encode(paint_palette(WITH_IGNORED, [BLACK, (128, 0, 0), *[BLACK] * 253, (224, 224, 192)]), "PNG"),
            id="voc-palette-with-void",
        ),
    ],
)
def test_255_is_ignored_where_the_other_values_are_0_and_1(data):
    np.testing.assert_array_equal(decode_label(data), WITH_IGNORED)
    np.testing.assert_array_equal(decode_index_label(data), WITH_IGNORED)


@pytest.mark.parametrize(
    "values",
    [
        pytest.param(TRUTH * np.uint8(255), id="no-1"),
        pytest.param(np.where(WITH_IGNORED == 255, 254, TRUTH * np.uint8(255)).astype(np.uint8), id="another-value"),
    ],
)
def test_255_is_defect_in_any_other_grey_label(values):
    np.testing.assert_array_equal(decode_label(encode(values, "PNG")), (values > 50).astype(np.uint8))


def test_ignored_pixels_of_a_label_file_are_not_scored():
    truth = decode_label(encode(WITH_IGNORED, "PNG"))
    claims_everything = np.full(truth.shape, 255, dtype=np.uint8)

    counts = count_pixels(claims_everything, truth)

    defect = int((WITH_IGNORED == 1).sum())
    background = int((WITH_IGNORED == 0).sum())
    assert (counts.tp, counts.fp, counts.fn, counts.tn) == (defect, background, 0, 0)
    assert defect + background < WITH_IGNORED.size


def test_ignored_pixels_are_no_part_of_a_predicted_mask():
    np.testing.assert_array_equal(decode_mask(encode_class_mask(WITH_IGNORED)), (WITH_IGNORED == 1) * 255)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(encode(TRUTH * np.uint8(2), "PNG"), "holds the values 2;", id="grey"),
        pytest.param(encode(TRUTH.astype(np.uint16) * 65535, "PNG"), "holds the values 65535;", id="16-bit"),
        pytest.param(encode(paint_palette(TRUTH * 2, [BLACK] * 3), "PNG"), "holds the values 2;", id="palette"),
        pytest.param(encode(COLOURED, "PNG"), "holds colours", id="colour"),
    ],
)
def test_a_label_of_class_numbers_with_an_unknown_one_is_refused(data, message):
    with pytest.raises(LabelValuesUnknown, match=message):
        decode_index_label(data)


def test_one_bit_is_background_and_defect_as_class_numbers_too():
    data = encode(TRUTH * np.uint8(255), "PNG", mode="1")

    np.testing.assert_array_equal(decode_index_label(data), TRUTH)


def test_a_label_of_class_numbers_that_cannot_be_decoded_is_invalid():
    with pytest.raises(InvalidLabel, match="cannot be read") as caught:
        decode_index_label(b"")

    assert caught.value.details == {"reason": "image_empty"}
