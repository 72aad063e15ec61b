from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from defectoscope.errors.images import ImageTooLarge, ImageTruncated
from defectoscope.segmentation import DecodeLimits, decode_image, decode_quickly, open_image
from tests.images import draw_part, encode, encode_turned

PART, _ = draw_part(height=201, width=333)


def _jpeg(pixels, **options):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", **{"quality": 90, **options})
    return file.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(_jpeg(PART), id="jpeg"),
        pytest.param(_jpeg(PART, progressive=True, subsampling=0), id="jpeg-progressive-444"),
        pytest.param(_jpeg(PART[:, :, 0]), id="jpeg-grey"),
        pytest.param(_jpeg(PART[:199, :331]), id="jpeg-odd-size"),
        pytest.param(encode(PART, "PNG"), id="png"),
        pytest.param(encode(PART, "TIFF"), id="tiff"),
        pytest.param(encode(PART, "WEBP", lossless=True), id="webp"),
    ],
)
def test_an_image_is_the_same_to_the_bit(data):
    quick, slow = decode_quickly(data), decode_image(data)

    assert np.array_equal(quick.pixels, slow.pixels)
    assert (quick.shape_hw, quick.format, quick.source_mode) == (slow.shape_hw, slow.format, slow.source_mode)
    assert quick.pixels.flags.c_contiguous
    assert quick.pixels.flags.writeable


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("least_size_wh", [None, (40, 30)], ids=["whole", "reduced"])
def test_a_turned_image_comes_upright(orientation, least_size_wh):
    data = encode_turned(np.ascontiguousarray(PART[:160, :240]), "JPEG", orientation=orientation, quality=95)
    slow = decode_image(data)

    quick = decode_quickly(data, least_size_wh=least_size_wh)

    height, width = quick.pixels.shape[:2]
    expected = cv2.resize(slow.pixels, (width, height), interpolation=cv2.INTER_AREA)
    assert quick.shape_hw == slow.shape_hw
    assert (width < slow.shape_hw[1]) == (least_size_wh is not None)
    assert np.abs(quick.pixels.astype(int) - expected).mean() < 1


@settings(deadline=None, max_examples=60)
@given(
    width=st.integers(1, 300), height=st.integers(1, 300), least_wh=st.tuples(st.integers(1, 400), st.integers(1, 400))
)
def test_a_reduction_is_never_below_what_is_enough(width, height, least_wh):
    data = _jpeg(np.zeros((height, width, 3), dtype=np.uint8))

    image = decode_quickly(data, least_size_wh=least_wh)

    got_height, got_width = image.pixels.shape[:2]
    assert image.shape_hw == (height, width)
    assert got_width >= min(width, least_wh[0])
    assert got_height >= min(height, least_wh[1])


def test_a_reduction_is_within_a_few_levels_of_the_mean_over_the_pixels():
    height, width = 200, 332
    data = _jpeg(PART[:height, :width], quality=90)
    whole = decode_image(data).pixels
    by_area = cv2.resize(whole, (width // 2, height // 2), interpolation=cv2.INTER_AREA).astype(int)

    reduced = decode_quickly(data, least_size_wh=(width // 2, height // 2)).pixels

    assert reduced.shape == by_area.shape
    difference = np.abs(reduced.astype(int) - by_area)
    assert difference.mean() < 1
    assert np.percentile(difference, 99) <= 4


@pytest.mark.parametrize("kept", [0.3, 0.7, 0.99], ids=str)
def test_a_truncated_jpeg_is_named_as_before(kept):
    data = _jpeg(PART)

    with pytest.raises(ImageTruncated):
        decode_quickly(data[: int(len(data) * kept)])


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_flat_jpeg_is_no_damaged_one(orientation):
    flat = np.full((100, 160, 3), 200, dtype=np.uint8)

    image = decode_quickly(encode_turned(flat, "JPEG", orientation=orientation))

    assert (image.pixels == 200).all()


def test_limits_hold_before_a_pixel_is_decoded():
    with pytest.raises(ImageTooLarge):
        decode_quickly(_jpeg(PART), limits=DecodeLimits(max_pixels=100))


def test_cmyk_keeps_pillows_formula():
    data = _jpeg(np.asarray(Image.fromarray(PART).convert("CMYK"))[:, :, :3])
    file = io.BytesIO()
    Image.fromarray(PART).convert("CMYK").save(file, "JPEG")

    assert np.array_equal(decode_quickly(file.getvalue()).pixels, decode_image(file.getvalue()).pixels)
    assert decode_quickly(data).source_mode == "RGB"


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "TIFF", "BMP", "WEBP"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_the_shape_is_known_before_a_pixel_is_decoded(image_format, orientation):
    # BMP has no place for an orientation.
    options = {} if image_format == "BMP" else {"orientation": orientation}
    data = (encode_turned if options else encode)(PART, image_format, **options)

    opened = open_image(data)

    assert opened.shape_hw == decode_image(data).shape_hw == opened.decode().shape_hw
