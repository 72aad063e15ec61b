from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco_api

from defectoscope.dataset.formats.run_lengths import decode_text, encode_runs, encode_text, find_spans
from defectoscope.errors.images import RunLengthsInvalid

REGIONS = hnp.array_shapes(min_dims=2, max_dims=2, max_side=30).flatmap(lambda shape: hnp.arrays(np.bool_, shape))


def fill(counts, shape):
    flat = np.zeros(shape[0] * shape[1], dtype=np.bool_)
    for start, end in find_spans(counts, shape_hw=shape):
        flat[start:end] = True
    return flat.reshape(shape[1], shape[0]).T


def api_text(region):
    return coco_api.encode(np.asfortranarray(region.astype(np.uint8)))["counts"].decode()


@given(region=REGIONS)
def test_the_text_of_a_region_is_that_of_the_coco_api(region):
    text = encode_text(encode_runs(region, shape_hw=region.shape))

    assert text == api_text(region)


@given(region=REGIONS)
def test_a_region_survives_its_counts_and_its_text(region):
    counts = encode_runs(region, shape_hw=region.shape)

    assert decode_text(encode_text(counts)) == counts
    np.testing.assert_array_equal(fill(counts, region.shape), region)


@given(region=REGIONS, left=st.integers(0, 3), top=st.integers(0, 3), right=st.integers(0, 3), below=st.integers(0, 3))
def test_a_window_gives_the_counts_of_the_whole_image(region, left, top, right, below):
    whole = np.pad(region, ((top, below), (left, right)))

    counts = encode_runs(region, shape_hw=whole.shape, left=left, top=top)

    assert counts == encode_runs(whole, shape_hw=whole.shape)


def test_large_counts_survive_the_text():
    region = np.zeros((3000, 4000), dtype=np.bool_)
    region[5, 7] = region[-1, -1] = True

    assert encode_text(encode_runs(region, shape_hw=region.shape)) == api_text(region)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        pytest.param([3, 2], "add up to 5 pixels; the image has 3 x 2", id="too-few"),
        pytest.param([3, 4], "add up to 7 pixels", id="too-many"),
        pytest.param([10**30], "add up to", id="absurd"),
        pytest.param([7, -1], "not a whole number of 0 or more", id="negative"),
        pytest.param([3.0, 3.0], "not a whole number", id="fractions"),
        pytest.param([True, 5], "not a whole number", id="truth-values"),
        pytest.param([None, 6], "not a whole number", id="nothing"),
    ],
)
def test_counts_that_fit_no_image_are_refused(counts, message):
    with pytest.raises(RunLengthsInvalid, match=message):
        find_spans(counts, shape_hw=(2, 3))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("5p", "no meaning", id="character-behind-the-last"),
        pytest.param("5 ", "no meaning", id="character-before-the-first"),
        pytest.param("o" * 30 + "0", "no meaning", id="number-without-end"),
        pytest.param("5o", "end within a number", id="cut-short"),
    ],
)
def test_text_that_cannot_be_followed_is_refused(text, message):
    with pytest.raises(RunLengthsInvalid, match=message):
        decode_text(text)


@given(text=st.text(st.characters(min_codepoint=40, max_codepoint=120), max_size=40))
def test_no_text_is_worse_than_refused(text):
    try:
        spans = find_spans(decode_text(text), shape_hw=(4, 5))
    except RunLengthsInvalid:
        return

    assert np.all((spans >= 0) & (spans <= 20))
