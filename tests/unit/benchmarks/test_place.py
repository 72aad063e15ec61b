"""Images to measure with."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from PIL import Image

from benchmarks.place import draw_images, draw_turned, numbered
from defectoscope.segmentation import decode_image


def test_a_drawn_image_and_its_mask_have_the_size_that_was_asked_for():
    (image,) = draw_images(1, size_wh=(320, 160), seed=1)

    assert Image.open(BytesIO(image.jpeg)).size == (320, 160)
    assert image.class_mask.shape == (160, 320)
    assert set(np.unique(image.class_mask)) <= {0, 1}


def test_a_number_makes_another_file_of_the_same_picture():
    (image,) = draw_images(1, size_wh=(64, 64), seed=1)

    first, second = numbered(image.jpeg, 1), numbered(image.jpeg, 2)

    assert len({image.jpeg, first, second}) == 3
    assert np.array_equal(decode_image(first).pixels, decode_image(image.jpeg).pixels)
    assert np.array_equal(decode_image(second).pixels, decode_image(image.jpeg).pixels)


def test_turned_pictures_all_differ():
    pictures = draw_turned(12, side_px=64, seed=1)

    pixels = {decode_image(picture).pixels.tobytes() for picture in pictures}

    assert len(pictures) == 12
    assert len(pixels) == 12
