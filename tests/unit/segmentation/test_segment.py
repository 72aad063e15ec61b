from __future__ import annotations

import dataclasses
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from defectoscope.errors.api import InvalidRequest
from defectoscope.errors.images import InvalidImage
from defectoscope.errors.models import InvalidModel
from defectoscope.segmentation import (
    SegmentationParams,
    from_model_output,
    segment,
    segment_batch,
    to_model_input,
)
from tests import models
from tests.images import draw_part

CONTRACT = dataclasses.replace(models.CONTRACT, input_size_wh=(32, 24))


def find_dark(inputs):
    """An engine that calls dark pixels defect, with a certainty that grows with darkness."""
    return (255 - inputs.max(axis=3)).astype(np.uint8)


def find_nothing(inputs):
    return np.zeros(inputs.shape[:3], dtype=np.uint8)


def find_everything(inputs):
    return np.full(inputs.shape[:3], 255, dtype=np.uint8)


def test_a_blank_image_yields_no_defects():
    image = np.full((60, 80, 3), 255, dtype=np.uint8)

    segmentation = segment(image, engine=find_dark, contract=CONTRACT)

    assert segmentation.defects == []
    assert segmentation.defect_px == 0
    assert segmentation.mask.shape == (60, 80)
    assert not segmentation.mask.any()


def test_a_dark_scratch_is_found_where_it_is():
    image = np.full((96, 128, 3), 255, dtype=np.uint8)
    image[40:48, 20:100] = 0

    segmentation = segment(image, engine=find_dark, contract=CONTRACT)

    (defect,) = segmentation.defects
    assert defect.box_xyxy == (20, 40, 100, 48)
    # Enlarging linearly rounds the four corners off by a pixel.
    assert defect.area_px == segmentation.defect_px == np.count_nonzero(segmentation.mask) == 8 * 80 - 4
    assert defect.max_probability == 1.0


def test_a_defect_fits_on_an_image_of_one_pixel():
    image = np.zeros((1, 1, 3), dtype=np.uint8)

    segmentation = segment(image, engine=find_dark, contract=CONTRACT)

    assert segmentation.mask.tolist() == [[255]]
    (defect,) = segmentation.defects
    assert defect.area_px == 1
    assert defect.box_xyxy == (0, 0, 1, 1)
    assert defect.centroid_xy == (0.0, 0.0)
    assert defect.touches_border


@pytest.mark.parametrize(
    "shape_hw",
    [
        pytest.param((24, 32), id="the-model's-own"),
        pytest.param((1080, 1920), id="larger"),
        pytest.param((5, 7), id="smaller"),
        pytest.param((200, 8), id="taller-and-narrower"),
        pytest.param((3, 500), id="flatter-and-wider"),
        pytest.param((1, 1), id="one-pixel"),
        pytest.param((1, 40_000), id="one-very-long-row"),
    ],
)
def test_any_size_comes_back_at_its_own_resolution(shape_hw):
    image = np.zeros((*shape_hw, 3), dtype=np.uint8)

    model_input = to_model_input(image, contract=CONTRACT)
    segmentation = segment(image, engine=find_everything, contract=CONTRACT)

    assert model_input.shape == (24, 32, 3)
    assert model_input.flags.c_contiguous
    assert segmentation.mask.shape == shape_hw
    assert segmentation.defect_px == shape_hw[0] * shape_hw[1]


def test_an_image_of_the_models_size_is_not_resampled():
    pixels, _ = draw_part(height=24, width=32)

    np.testing.assert_array_equal(to_model_input(pixels, contract=CONTRACT), pixels)


def test_shrinking_takes_the_mean_of_the_covered_area():
    pixels, _ = draw_part(height=24 * 8, width=32 * 5)

    model_input = to_model_input(pixels, contract=CONTRACT)

    means = pixels.reshape(24, 8, 32, 5, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(model_input, means, atol=0.51)


def test_a_line_of_one_pixel_survives_shrinking_wherever_it_lies():
    darkest = []
    for column in range(64):
        pixels = np.full((24, 1024, 3), 255, dtype=np.uint8)
        pixels[:, 512 + column] = 0
        darkest.append(int(to_model_input(pixels, contract=CONTRACT).min()))

    assert set(darkest) == {247}


def test_an_axis_that_shrinks_is_averaged_also_when_the_other_grows():
    pixels = np.zeros((6, 64, 3), dtype=np.uint8)
    pixels[:, ::2] = 200

    model_input = to_model_input(pixels, contract=CONTRACT)

    assert np.unique(model_input).tolist() == [100]


def test_probabilities_are_enlarged_before_they_are_compared():
    # Between 0 and 255 the enlarged edge passes 128 half way, and 230 later: the mask shrinks smoothly.
    probabilities = np.array([[0, 255]], dtype=np.uint8)

    masks = [
        from_model_output(
            probabilities, shape_hw=(1, 200), params=SegmentationParams(threshold=threshold, min_area_px=1)
        ).mask
        for threshold in (0.1, 0.5, 0.9)
    ]

    assert [np.count_nonzero(mask) for mask in masks] == pytest.approx([140, 100, 60], abs=1)


@given(level=st.integers(0, 255), threshold=st.floats(0, 1, exclude_min=True))
def test_the_threshold_is_compared_exactly(level, threshold):
    probabilities = np.full((2, 3), level, dtype=np.uint8)

    segmentation = from_model_output(
        probabilities, shape_hw=(2, 3), params=SegmentationParams(threshold=threshold, min_area_px=1)
    )

    assert segmentation.defect_px == (6 if level / 255 >= threshold else 0)


@given(threshold=st.decimals("0.001", "1", places=3))
def test_the_lowest_defect_level_is_the_rounded_up_threshold(threshold):
    levels = np.arange(256, dtype=np.uint8)[np.newaxis]

    segmentation = from_model_output(
        levels, shape_hw=(1, 256), params=SegmentationParams(threshold=float(threshold), min_area_px=1)
    )

    assert segmentation.mask.argmax() == math.ceil(Fraction(threshold) * 255)


@pytest.mark.parametrize("level", range(1, 256))
def test_a_threshold_of_a_level_keeps_that_level(level):
    levels = np.array([[level - 1, level]], dtype=np.uint8)

    segmentation = from_model_output(
        levels, shape_hw=(1, 2), params=SegmentationParams(threshold=level / 255, min_area_px=1)
    )

    assert segmentation.mask.tolist() == [[0, 255]]


def test_regions_below_the_minimum_area_are_left_out_of_mask_and_defects():
    probabilities = np.zeros((24, 32), dtype=np.uint8)
    probabilities[2:4, 2:4] = 255
    probabilities[10:20, 10:20] = 255

    segmentation = from_model_output(
        probabilities, shape_hw=(24, 32), params=SegmentationParams(threshold=0.5, min_area_px=5)
    )

    assert [defect.area_px for defect in segmentation.defects] == [100]
    assert segmentation.defect_px == np.count_nonzero(segmentation.mask) == 100


def test_chosen_parameters_replace_those_of_the_contract():
    image = np.full((24, 32, 3), 100, dtype=np.uint8)

    by_contract = segment(image, engine=find_dark, contract=CONTRACT)
    stricter = segment(
        image, engine=find_dark, contract=CONTRACT, params=SegmentationParams(threshold=0.7, min_area_px=1)
    )

    assert by_contract.defect_px == 24 * 32
    assert stricter.defect_px == 0


def test_a_batch_gives_what_its_images_give_alone():
    images = [draw_part(height=20 + 13 * seed, width=90 - 11 * seed, seed=seed)[0] for seed in range(5)]
    params = SegmentationParams(threshold=0.6, min_area_px=3)

    batch = segment_batch(images, engine=find_dark, contract=CONTRACT, params=params)

    alone = [segment(image, engine=find_dark, contract=CONTRACT, params=params) for image in images]
    assert [together.defects for together in batch] == [single.defects for single in alone]
    for together, single, image in zip(batch, alone, images, strict=True):
        np.testing.assert_array_equal(together.mask, single.mask)
        assert together.mask.shape == image.shape[:2]


def test_no_images_give_no_segmentations():
    assert segment_batch([], engine=find_nothing, contract=CONTRACT) == []


@pytest.mark.parametrize(
    "image",
    [
        pytest.param(np.zeros((8, 8), dtype=np.uint8), id="grey"),
        pytest.param(np.zeros((8, 8, 4), dtype=np.uint8), id="four-channels"),
        pytest.param(np.zeros((8, 8, 3), dtype=np.float32), id="floats"),
        pytest.param(np.zeros((0, 8, 3), dtype=np.uint8), id="no-rows"),
    ],
)
def test_an_array_that_is_no_image_is_refused(image):
    with pytest.raises(InvalidImage, match="uint8 array"):
        segment(image, engine=find_nothing, contract=CONTRACT)


@pytest.mark.parametrize(
    "engine",
    [
        pytest.param(lambda inputs: np.zeros((*inputs.shape[:3], 1), dtype=np.uint8), id="extra-axis"),
        pytest.param(lambda inputs: np.zeros(inputs.shape[:3], dtype=np.float32), id="floats"),
        pytest.param(lambda inputs: np.zeros((2, *inputs.shape[1:3]), dtype=np.uint8), id="too-many"),
    ],
)
def test_a_model_that_breaks_its_contract_is_refused(engine):
    with pytest.raises(InvalidModel, match="where the contract demands"):
        segment(np.zeros((8, 8, 3), dtype=np.uint8), engine=engine, contract=CONTRACT)


@pytest.mark.parametrize(
    ("threshold", "min_area_px"),
    [
        pytest.param(0.0, 1, id="zero"),
        pytest.param(1.001, 1, id="above-one"),
        pytest.param(math.nan, 1, id="nan"),
        pytest.param(0.5, -1, id="negative-area"),
    ],
)
def test_parameters_out_of_range_are_refused(threshold, min_area_px):
    with pytest.raises(InvalidRequest):
        SegmentationParams(threshold=threshold, min_area_px=min_area_px)
