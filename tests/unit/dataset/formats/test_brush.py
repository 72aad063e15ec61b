from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from defectoscope.dataset.formats.brush import decode_brush, encode_brush
from defectoscope.errors.images import RunLengthsInvalid

#: A frame around a hole, and a dot in the lower right corner.
FRAME = np.array(
    [
        [0, 0, 0, 0, 0, 0, 0],
        [0, 0, 255, 255, 255, 255, 0],
        [0, 0, 255, 0, 0, 255, 0],
        [0, 0, 255, 255, 255, 255, 0],
        [0, 0, 0, 0, 0, 0, 255],
    ],
    dtype=np.uint8,
)
#: What `mask2rle` of Label Studio's own SDK (2.1.2) makes of the frame.
FRAME_STREAM = [
    *(0, 0, 0, 140, 57, 27, 254, 35, 0, 191, 255, 108, 2),
    *(63, 249, 192, 35, 255, 182, 1, 127, 255, 13, 128, 71, 254),
]
HEADER = "000001110010001101111111"


def to_stream(bits):
    """Bytes from text of bits, filled up with zeros."""
    bits = bits.replace(" ", "")
    bits += "0" * (-len(bits) % 8)
    return [int(bits[at : at + 8], 2) for at in range(0, len(bits), 8)]


def test_a_stream_of_label_studio_is_read():
    np.testing.assert_array_equal(decode_brush(FRAME_STREAM, shape_hw=FRAME.shape), FRAME)


def test_a_stream_is_written_as_label_studio_writes_it():
    assert encode_brush(FRAME) == FRAME_STREAM


@given(
    mask=hnp.array_shapes(min_dims=2, max_dims=2, max_side=25).flatmap(
        lambda shape: hnp.arrays(np.uint8, shape, elements=st.sampled_from([0, 255, 128]))
    )
)
def test_a_mask_survives_its_stream(mask):
    np.testing.assert_array_equal(decode_brush(encode_brush(mask), shape_hw=mask.shape), mask)


def test_a_run_longer_than_any_record_survives():
    mask = np.zeros((300, 400), dtype=np.uint8)
    mask[100:, :] = 255

    np.testing.assert_array_equal(decode_brush(encode_brush(mask), shape_hw=mask.shape), mask)


def test_the_last_of_four_channels_says_what_is_painted():
    # Two pixels, value by value: the first is white and not painted, the second black and painted.
    values = [255, 255, 255, 0, 0, 0, 0, 255]
    stream = to_stream(f"{8:032b}0" + HEADER[4:] + "0 00 111" + "".join(f"{value:08b}" for value in values))

    np.testing.assert_array_equal(decode_brush(stream, shape_hw=(1, 2)), [[0, 255]])


def test_a_record_may_end_within_a_pixel():
    stream = to_stream(
        f"{8:032b}0" + HEADER[4:] + "1 00 001 00000000" + "0 00 010 00000001 00000010 00000011" + "1 00 010 00001001"
    )

    np.testing.assert_array_equal(decode_brush(stream, shape_hw=(1, 2)), [[2, 9]])


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        pytest.param([], "ends early", id="nothing"),
        pytest.param(FRAME_STREAM[:5], "ends early", id="half-a-header"),
        pytest.param(FRAME_STREAM[:-3], "ends early", id="cut-short"),
        pytest.param(["a"], "not a list of bytes", id="text"),
        pytest.param([256], "not a list of bytes", id="too-large"),
        pytest.param(to_stream(f"{140:032b}00001" + "0" * 16), "values of 2 bits", id="other-values"),
        pytest.param(to_stream(f"{144:032b}00111" + "0" * 16), "holds 36 pixels; the image has 7 x 5", id="other-size"),
        pytest.param(
            to_stream(f"{140:032b}0" + HEADER[4:] + "1 11 1111111111111111 11111111"), "beyond the last", id="too-long"
        ),
    ],
)
def test_a_stream_that_cannot_be_followed_is_refused(stream, message):
    with pytest.raises(RunLengthsInvalid, match=message):
        decode_brush(stream, shape_hw=FRAME.shape)


@given(stream=st.lists(st.integers(0, 255), max_size=60))
def test_no_stream_is_worse_than_refused(stream):
    header = to_stream(f"{140:032b}0" + HEADER[4:])
    try:
        painted = decode_brush(header + stream, shape_hw=FRAME.shape)
    except RunLengthsInvalid:
        return

    assert painted.shape == FRAME.shape
