from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from defectoscope.errors.images import InvalidLabel
from defectoscope.segmentation import decode_mask, encode_mask

MASKS = hnp.array_shapes(min_dims=2, max_dims=2, max_side=40).flatmap(
    lambda shape: hnp.arrays(np.uint8, shape, elements=st.sampled_from([0, 255]))
)


@given(mask=MASKS)
def test_a_mask_survives_its_file(mask):
    np.testing.assert_array_equal(decode_mask(encode_mask(mask)), mask)


@given(mask=MASKS)
def test_equal_masks_give_equal_bytes(mask):
    assert encode_mask(mask) == encode_mask(np.asfortranarray(mask.copy()))


def test_a_mask_file_is_a_png_of_one_bit_a_pixel():
    data = encode_mask(np.full((100, 200), 255, dtype=np.uint8))

    with Image.open(io.BytesIO(data)) as image:
        assert (image.format, image.mode, image.size) == ("PNG", "1", (200, 100))
    assert len(data) < 200


@given(mask=MASKS)
def test_other_decoders_read_the_same_mask(mask):
    data = encode_mask(mask)

    with Image.open(io.BytesIO(data)) as image:
        image.load()
        np.testing.assert_array_equal(np.asarray(image.convert("L")), mask)
    np.testing.assert_array_equal(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE), mask)


def test_a_damaged_mask_file_is_refused():
    data = encode_mask(np.zeros((64, 64), dtype=np.uint8))

    with pytest.raises(InvalidLabel, match="ends early or is damaged"):
        decode_mask(data[:45])
