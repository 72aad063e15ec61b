from __future__ import annotations

import dataclasses
import tracemalloc
from itertools import pairwise

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from defectoscope.errors.api import InvalidRequest
from defectoscope.errors.images import InvalidImage
from defectoscope.segmentation import SegmentationParams, find_defects, lay_out, segment, segment_batch
from defectoscope.segmentation.placement import fit_box_xyxy, place_tiles
from tests import models

CONTRACT = dataclasses.replace(
    models.CONTRACT, input_size_wh=(40, 32), resize_policy="tile", tile_overlap_px=10, model_scale=1.0
)
PARAMS = SegmentationParams(threshold=0.5, min_area_px=1)
side = st.integers(1, 150)


def find_dark(inputs):
    """An engine that looks at one pixel at a time: the certainty is the darkness."""
    return (255 - inputs.max(axis=3)).astype(np.uint8)


def find_blurred(inputs):
    """An engine that looks at the surroundings, so that neighbouring tiles disagree near their borders."""
    return np.stack([cv2.blur(255 - image[:, :, 0], (15, 15)) for image in inputs])


def draw_noise(shape_hw, *, seed):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (shape_hw[0] // 9 + 1, shape_hw[1] // 9 + 1), dtype=np.uint8)
    grey = cv2.resize(coarse, shape_hw[::-1], interpolation=cv2.INTER_CUBIC).reshape(shape_hw)
    return np.repeat(grey[:, :, np.newaxis], 3, axis=2)


@settings(deadline=None)
@given(shape_hw=st.tuples(side, side), overlap_px=st.none() | st.integers(0, 16), seed=st.integers(0, 99))
def test_tiles_give_what_one_look_at_the_whole_image_gives(shape_hw, overlap_px, seed):
    pixels = draw_noise(shape_hw, seed=seed)
    contract = dataclasses.replace(CONTRACT, tile_overlap_px=overlap_px)

    tiled = segment(pixels, engine=find_dark, contract=contract)

    levels = find_dark(pixels[np.newaxis])[0]
    mask, defects = find_defects(np.where(levels >= 128, np.uint8(255), np.uint8(0)), levels, min_area_px=1)
    np.testing.assert_array_equal(tiled.mask, mask)
    assert tiled.defects == defects


@pytest.mark.parametrize("overlap_px", [0, 1, 10, 16])
@pytest.mark.parametrize("model_scale", [0.5, 1.0, 2.0])
def test_a_defect_across_every_border_of_the_tiles_is_one_defect(overlap_px, model_scale):
    pixels = np.full((200, 260, 3), 255, dtype=np.uint8)
    pixels[20:180, 30:230] = 0
    contract = dataclasses.replace(CONTRACT, tile_overlap_px=overlap_px, model_scale=model_scale)

    tiled = segment(pixels, engine=find_dark, contract=contract)

    (defect,) = tiled.defects
    assert lay_out((200, 260), contract=contract).count > 4
    assert defect.area_px == pytest.approx(160 * 200, abs=0 if model_scale == 1 else 8)
    assert defect.box_xyxy == (30, 20, 230, 180)
    assert defect.mean_probability > 0.99


def test_where_tiles_disagree_there_is_no_step():
    # A darker and darker image: a tile that does not see beyond its border takes the mean over what it does see.
    pixels = np.repeat(np.linspace(255, 0, 400).astype(np.uint8)[np.newaxis, :, np.newaxis], 3, axis=2)
    pixels = np.repeat(pixels, 64, axis=0)
    assembly = lay_out((64, 400), contract=CONTRACT).assembly()
    layout = lay_out((64, 400), contract=CONTRACT)

    for index in range(layout.count):
        assembly.add(find_blurred(layout.model_input(pixels, index)[np.newaxis])[0], index)

    steps = np.diff(assembly.levels().astype(int), axis=1)
    assert layout.count > 20
    assert steps.min() >= 0
    assert steps.max() <= 3


@settings(deadline=None)
@given(shape_hw=st.tuples(side, side), policy=st.sampled_from(["stretch", "letterbox", "tile"]), seed=st.integers(0, 9))
def test_the_highest_level_is_never_exceeded(shape_hw, policy, seed):
    layout = lay_out(shape_hw, contract=CONTRACT, policy=policy)
    rng = np.random.default_rng(seed)
    assembly = layout.assembly()
    highest = 0

    for index in range(layout.count):
        output = rng.integers(0, 256, (32, 40), dtype=np.uint8)
        highest = max(highest, int(output.max()))
        assembly.add(output, index)

    assert assembly.levels().shape == shape_hw
    assert int(assembly.levels().max()) <= highest


@given(
    shape_hw=st.tuples(st.integers(1, 30_000), st.integers(1, 30_000)),
    input_size_wh=st.tuples(st.integers(32, 600), st.integers(32, 600)),
    overlap_share=st.floats(0, 0.5),
    model_scale=st.floats(0.1, 4),
)
def test_tiles_cover_the_image_and_overlap_enough(shape_hw, input_size_wh, overlap_share, model_scale):
    overlap_px = int(min(input_size_wh) * overlap_share)

    grid = place_tiles(shape_hw, input_size_wh=input_size_wh, overlap_px=overlap_px, model_scale=model_scale)

    for starts, tile, length in zip((grid.tops, grid.lefts), grid.tile_hw, shape_hw, strict=True):
        least = min(round(overlap_px / model_scale), tile // 2)
        assert starts[0] == 0
        assert starts[-1] + tile == length or (len(starts) == 1 and tile >= length)
        assert all(0 < after - before <= tile - least for before, after in pairwise(starts))
        # One tile fewer would not do.
        assert len(starts) == 1 or (len(starts) - 1) * (tile - least) + least < length


def test_an_image_smaller_than_a_tile_is_seen_at_its_own_scale():
    pixels = draw_noise((20, 30), seed=1)

    seen = lay_out((20, 30), contract=CONTRACT).model_input(pixels, 0)

    np.testing.assert_array_equal(seen[:20, :30], pixels)
    assert (seen[20:, :30] == pixels[19]).all()
    assert (seen[:20, 30:] == pixels[:, 29:]).all()


def test_a_letterbox_keeps_the_aspect_ratio():
    pixels = np.full((320, 100, 3), 255, dtype=np.uint8)
    pixels[::2] = 0

    layout = lay_out((320, 100), contract=CONTRACT, policy="letterbox")

    assert fit_box_xyxy((320, 100), input_size_wh=(40, 32)) == (15, 0, 25, 32)
    assert layout.model_scale == 0.1
    assert layout.least_size_wh == (10, 32)
    assert layout.model_input(pixels, 0).shape == (32, 40, 3)


def test_nothing_is_found_in_what_a_letterbox_fills_up():
    pixels = np.zeros((300, 90, 3), dtype=np.uint8)
    pixels[:, 18:72] = 255

    found = segment(pixels, engine=find_dark, contract=CONTRACT, policy="letterbox")

    assert [defect.box_xyxy for defect in found.defects] == [(0, 0, 18, 300), (72, 0, 90, 300)]


@settings(deadline=None)
@given(shape_hw=st.tuples(side, side), input_size_wh=st.tuples(st.integers(1, 60), st.integers(1, 60)))
def test_a_letterbox_comes_back_to_the_very_box_of_the_image(shape_hw, input_size_wh):
    contract = dataclasses.replace(CONTRACT, input_size_wh=input_size_wh, tile_overlap_px=None)
    layout = lay_out(shape_hw, contract=contract, policy="letterbox")
    left, top, right, bottom = fit_box_xyxy(shape_hw, input_size_wh=input_size_wh)
    output = np.zeros(input_size_wh[::-1], dtype=np.uint8)
    output[top:bottom, left:right] = 255
    assembly = layout.assembly()

    assembly.add(output, 0)

    assert assembly.finish(PARAMS).defect_px == shape_hw[0] * shape_hw[1]


@settings(deadline=None)
@given(shape_hw=st.tuples(side, side), input_size_wh=st.tuples(st.integers(1, 300), st.integers(1, 300)))
def test_the_box_of_a_letterbox_has_the_aspect_ratio_to_the_pixel(shape_hw, input_size_wh):
    left, top, right, bottom = fit_box_xyxy(shape_hw, input_size_wh=input_size_wh)

    scale = min(input_size_wh[0] / shape_hw[1], input_size_wh[1] / shape_hw[0])
    assert 0 <= left < right <= input_size_wh[0]
    assert 0 <= top < bottom <= input_size_wh[1]
    assert right - left == pytest.approx(max(1, scale * shape_hw[1]), abs=0.5)
    assert bottom - top == pytest.approx(max(1, scale * shape_hw[0]), abs=0.5)


def test_a_mixed_batch_gives_what_its_images_give_alone():
    images = [draw_noise((20 + 31 * seed, 130 - 17 * seed), seed=seed) for seed in range(5)]

    together = segment_batch(images, engine=find_blurred, contract=CONTRACT)

    for found, image in zip(together, images, strict=True):
        alone = segment(image, engine=find_blurred, contract=CONTRACT)
        assert found.defects == alone.defects
        np.testing.assert_array_equal(found.mask, alone.mask)


def test_the_engine_never_gets_more_tiles_at_once_than_a_batch():
    sizes = []

    def engine(inputs):
        sizes.append(len(inputs))
        return find_dark(inputs)

    segment(draw_noise((300, 400), seed=0), engine=engine, contract=CONTRACT)

    assert max(sizes) == 8
    assert sum(sizes) == lay_out((300, 400), contract=CONTRACT).count


def test_what_an_assembly_was_given_may_be_written_over():
    layout = lay_out((60, 80), contract=CONTRACT, policy="stretch")
    assembly = layout.assembly()
    output = np.full((32, 40), 255, dtype=np.uint8)

    assembly.add(output, 0)
    output[:] = 0

    assert assembly.finish(PARAMS).defect_px == 60 * 80


def test_a_contract_that_says_nothing_of_tiles_gives_them_the_pixels_of_the_image():
    contract = dataclasses.replace(
        CONTRACT, resize_policy="stretch", input_size_wh=(512, 512), tile_overlap_px=None, model_scale=None
    )

    layout = lay_out((960, 1408), contract=contract, policy="tile")

    assert layout.model_scale == 1.0
    assert layout.count == 2 * 3
    assert layout.least_size_wh == (1408, 960)


def test_a_reduction_of_the_image_is_not_cut_into_tiles():
    layout = lay_out((200, 200), contract=CONTRACT)

    with pytest.raises(InvalidImage, match="200 x 200 pixels; this one has 100 x 100"):
        layout.model_input(np.zeros((100, 100, 3), dtype=np.uint8), 0)


def test_an_unknown_policy_is_refused():
    with pytest.raises(InvalidRequest, match='no resize policy "crop"; there are stretch, letterbox, tile'):
        lay_out((10, 10), contract=CONTRACT, policy="crop")


def test_tiles_take_two_bytes_for_each_pixel_of_the_image_and_a_few_bands():
    shape_hw = (5000, 6000)
    contract = dataclasses.replace(CONTRACT, input_size_wh=(512, 512), tile_overlap_px=64)
    layout = lay_out(shape_hw, contract=contract)
    output = np.zeros((512, 512), dtype=np.uint8)
    output[100:140, 100:400] = 255
    tracemalloc.start()

    assembly = layout.assembly()
    for index in range(layout.count):
        assembly.add(output, index)
    found = assembly.finish(PARAMS)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    bands_bytes = 2 * 4 * 512 * 6000 + 60e6
    assert len(found.defects) >= layout.count
    assert peak_bytes < 2 * 5000 * 6000 + bands_bytes
