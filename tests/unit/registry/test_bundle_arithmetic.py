"""The arithmetic of a bundle, in numpy, is that of the product, in OpenCV: bit for bit."""

from __future__ import annotations

import dataclasses
import importlib.util
from importlib import resources

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from defectoscope.segmentation import SegmentationParams, find_defects, from_model_output, segment, to_model_input
from tests.models import CONTRACT

SIZES_HW = {
    "camera-frame": (1080, 1920),
    "small-camera": (600, 800),
    "twice-the-input": (512, 512),
    "four-times-one-axis": (1024, 256),
    "one-pixel-more": (257, 257),
    "one-axis-shrinks-the-other-grows": (700, 33),
    "the-other-way": (33, 700),
    "same-size": (256, 256),
    "tiny": (5, 3),
    "one-row": (1, 900),
    "one-pixel": (1, 1),
}
side = st.integers(1, 400)


@pytest.fixture(scope="module")
def predict():
    """The script of the bundle as a module."""
    path = resources.files("defectoscope.registry.bundle") / "contents" / "predict.py"
    spec = importlib.util.spec_from_file_location("bundle_predict", str(path))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("shape_hw", SIZES_HW.values(), ids=SIZES_HW.keys())
def test_an_image_comes_to_the_size_of_the_model_as_in_the_product(shape_hw, predict):
    pixels = np.random.default_rng(sum(shape_hw)).integers(0, 256, (*shape_hw, 3), dtype=np.uint8)

    seen = predict.resize(pixels, shape_hw=(256, 256))

    assert np.array_equal(seen, to_model_input(pixels, contract=CONTRACT))


@pytest.mark.parametrize("shape_hw", SIZES_HW.values(), ids=SIZES_HW.keys())
@pytest.mark.parametrize("min_area_px", [0, 1, 7, 60])
def test_levels_become_the_mask_of_the_product(shape_hw, min_area_px, predict):
    contract = dataclasses.replace(CONTRACT, min_area_px=min_area_px, threshold=0.55)
    rng = np.random.default_rng(min_area_px)
    coarse = np.repeat(np.repeat(rng.integers(0, 256, (32, 32)), 8, axis=0), 8, axis=1)
    levels = ((coarse + rng.integers(0, 256, (256, 256))) // 2).astype(np.uint8)

    mask = predict.to_mask(levels, shape_hw=shape_hw, contract=contract)

    expected = from_model_output(levels, shape_hw=shape_hw, params=SegmentationParams.from_contract(contract))
    assert np.array_equal(mask, expected.mask)


@settings(max_examples=40, deadline=None)
@given(
    shape_hw=st.tuples(st.integers(1, 130), st.integers(1, 130)),
    policy=st.sampled_from(["stretch", "letterbox", "tile"]),
    model_scale=st.sampled_from([None, 0.5, 1.7]),
    seed=st.integers(0, 2**16),
)
def test_an_image_gives_the_mask_of_the_product_in_every_way_to_resize(predict, shape_hw, policy, model_scale, seed):
    contract = dataclasses.replace(
        CONTRACT, input_size_wh=(32, 24), resize_policy=policy, model_scale=model_scale, min_area_px=5
    )
    pixels = np.random.default_rng(seed).integers(0, 256, (*shape_hw, 3), dtype=np.uint8)
    pixels[shape_hw[0] // 3 :, : shape_hw[1] // 2] //= 3

    mask = predict.make_find(lambda seen: 255 - seen[:, :, 1], contract=contract)(pixels)

    expected = segment(pixels, engine=lambda inputs: 255 - inputs[..., 1], contract=contract)
    assert np.array_equal(mask, expected.mask)


@settings(max_examples=60, deadline=None)
@given(from_hw=st.tuples(side, side), to_hw=st.tuples(side, side), seed=st.integers(0, 2**16))
def test_any_size_comes_to_any_other_as_in_the_product(predict, from_hw, to_hw, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (*from_hw, 3), dtype=np.uint8)
    contract = dataclasses.replace(CONTRACT, input_size_wh=to_hw[::-1])

    seen = predict.resize(pixels, shape_hw=to_hw)

    assert np.array_equal(seen, to_model_input(pixels, contract=contract))


@settings(max_examples=60, deadline=None)
@given(
    shape_hw=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    density=st.floats(0, 1),
    least=st.integers(0, 40),
    seed=st.integers(0, 2**16),
)
def test_small_regions_are_dropped_as_in_the_product(predict, shape_hw, density, least, seed):
    mask = np.where(np.random.default_rng(seed).random(shape_hw) < density, 255, 0).astype(np.uint8)

    kept = predict.drop_specks(mask, min_area_px=least)

    assert np.array_equal(kept, find_defects(mask, mask, min_area_px=least)[0])


def test_a_region_that_winds_is_one_region(predict):
    mask = np.zeros((400, 300), dtype=np.uint8)
    mask[::2] = 255
    mask[1::4, -1] = 255
    mask[3::4, 0] = 255
    mask[0, 0] = mask[-2, 5] = 0

    kept = predict.drop_specks(mask, min_area_px=1000)

    assert np.array_equal(kept, find_defects(mask, mask, min_area_px=1000)[0])
    assert kept.any()
