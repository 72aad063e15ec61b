from __future__ import annotations

import cv2
import numpy as np
import pytest

from defectoscope.segmentation import decode_image, encode_overlay, find_defects


def draw(side, *, value=140):
    pixels = np.full((side, side, 3), value, dtype=np.uint8)
    mask = np.zeros((side, side), dtype=np.uint8)
    cv2.circle(mask, (side // 2, side // 2), side // 6, 255, cv2.FILLED)
    _, defects = find_defects(mask, mask, min_area_px=1)
    return pixels, mask, defects


def count_red(pixels):
    wide = pixels.astype(int)
    return np.count_nonzero((wide[:, :, 0] > 200) & (wide[:, :, 1] < 70) & (wide[:, :, 2] < 80))


@pytest.mark.parametrize("side", [256, 1000, 4000])
def test_the_defect_is_tinted_and_outlined_and_the_rest_is_left_alone(side):
    pixels, mask, defects = draw(side)

    drawn = decode_image(encode_overlay(pixels, mask, defects=defects))

    assert drawn.format == "JPEG"
    assert drawn.shape_hw == (side, side)
    centre = drawn.pixels[side // 2, side // 2].astype(int)
    assert centre[0] - centre[1] > 50
    np.testing.assert_allclose(drawn.pixels[-side // 10 :, -side // 10 :], 140, atol=2)
    # The outline is as long as the circle and at least a pixel wide.
    assert count_red(drawn.pixels) > np.pi * side / 3 * 0.8


def test_lines_grow_with_the_image():
    widths = []
    for side in (256, 4000):
        pixels, mask, _ = draw(side)
        row = decode_image(encode_overlay(pixels, mask)).pixels[side // 2, : side // 2]
        widths.append(count_red(row[np.newaxis]))

    assert widths[0] <= 2
    assert widths[1] >= 4


@pytest.mark.parametrize("value", [0, 255], ids=["on-black", "on-white"])
def test_the_box_and_number_show_on_any_ground(value):
    pixels, mask, defects = draw(256, value=value)

    without = decode_image(encode_overlay(pixels, mask)).pixels.astype(int)
    with_box = decode_image(encode_overlay(pixels, mask, defects=defects)).pixels.astype(int)

    assert np.count_nonzero(np.abs(with_box - without).max(axis=2) > 150) > 200


def test_only_the_largest_twenty_are_numbered():
    mask = np.zeros((400, 400), dtype=np.uint8)
    for number in range(25):
        y, x = 40 + 75 * (number // 5), 40 + 75 * (number % 5)
        mask[y : y + 3, x : x + 30 - number] = 255
    pixels = np.zeros((400, 400, 3), dtype=np.uint8)
    _, defects = find_defects(mask, mask, min_area_px=1)

    twenty = encode_overlay(pixels, mask, defects=defects[:20])

    assert len(defects) == 25
    assert encode_overlay(pixels, mask, defects=defects) == twenty
    assert encode_overlay(pixels, mask, defects=defects[:19]) != twenty


def test_a_blank_mask_leaves_the_image_alone():
    pixels, mask, _ = draw(128)

    drawn = decode_image(encode_overlay(pixels, np.zeros_like(mask)))

    np.testing.assert_allclose(drawn.pixels, pixels, atol=1)


def test_the_given_image_is_left_alone():
    pixels, mask, defects = draw(128)

    encode_overlay(pixels, mask, defects=defects)

    assert np.unique(pixels).tolist() == [140]


@pytest.mark.parametrize("shape_hw", [(1, 1), (1, 500), (500, 1), (20, 20), (97, 2000)])
def test_an_image_of_any_shape_can_be_drawn_on(shape_hw):
    mask = np.full(shape_hw, 255, dtype=np.uint8)
    _, defects = find_defects(mask, mask, min_area_px=1)

    drawn = decode_image(encode_overlay(np.zeros((*shape_hw, 3), dtype=np.uint8), mask, defects=defects))

    assert drawn.shape_hw == shape_hw
