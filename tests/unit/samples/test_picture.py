from __future__ import annotations

import cv2
import numpy as np
import pytest

from defectoscope.samples import Sample, draw_sample
from defectoscope.samples.defects import DEFECTS, FAINTEST_CHANGE, paint
from defectoscope.samples.textures import TEXTURES

FAINTEST_LEVELS = 12
"""Mean change within a mask, in grey levels of 255, that a person sees on every one of these materials."""


@pytest.fixture(scope="module")
def series() -> list[Sample]:
    return [draw_sample(seed=11, number=number) for number in range(60)]


def test_each_material_and_each_kind_of_defect_occurs(series):
    textures = {sample.texture for sample in series}
    kinds = {kind for sample in series for kind in sample.defects}

    assert textures == set(TEXTURES)
    assert kinds == set(DEFECTS)


def test_a_mask_is_binary_and_empty_exactly_when_no_defect_was_drawn(series):
    for sample in series:
        assert sample.class_mask.dtype == np.uint8
        assert sample.class_mask.shape == sample.pixels.shape[:2]
        assert set(np.unique(sample.class_mask).tolist()) == ({0, 1} if sample.defects else {0})


def test_one_of_each_four_samples_is_defect_free(series):
    sound = [not sample.defects for sample in series]

    assert [sum(sound[start : start + 4]) for start in range(0, 60, 4)] == [1] * 15


def test_sizes_vary_and_stay_within_bounds(series):
    shapes_hw = {sample.class_mask.shape for sample in series}

    assert len(shapes_hw) > 20
    assert any(height != width for height, width in shapes_hw)
    assert all(min(shape_hw) >= 256 and max(shape_hw) <= 800 for shape_hw in shapes_hw)


def test_a_sample_is_the_same_whenever_it_is_drawn(series):
    again = draw_sample(seed=11, number=7)

    np.testing.assert_array_equal(again.pixels, series[7].pixels)
    np.testing.assert_array_equal(again.class_mask, series[7].class_mask)
    assert (again.stem, again.texture, again.defects) == (series[7].stem, series[7].texture, series[7].defects)


def test_defects_change_the_picture_inside_the_mask_and_nowhere_else(series):
    damaged = [(number, sample) for number, sample in enumerate(series) if sample.defects]

    assert len(damaged) == 45
    for number, sample in damaged:
        sound = draw_sample(seed=11, number=number, with_defects=False)
        change = np.abs(sample.pixels.astype(np.int16) - sound.pixels).mean(axis=2)
        # The soft edge of a stain reaches four pixels at most past the middle of the edge.
        near = cv2.dilate(sample.class_mask, np.ones((11, 11), np.uint8)) == 1
        assert change[sample.class_mask == 1].mean() > FAINTEST_LEVELS, sample.stem
        assert change[~near].max() == 0, sample.stem
        assert change[sample.class_mask == 0].mean() < 1.0, sample.stem


def test_a_defect_free_sample_is_the_sound_picture(series):
    number = next(number for number, sample in enumerate(series) if not sample.defects)

    sound = draw_sample(seed=11, number=number, with_defects=False)

    np.testing.assert_array_equal(sound.pixels, series[number].pixels)


@pytest.mark.parametrize("texture", sorted(TEXTURES))
@pytest.mark.parametrize("kind", sorted(DEFECTS))
def test_each_defect_shows_on_each_material(kind, texture):
    for seed in range(5):
        rng = np.random.Generator(np.random.PCG64(seed))
        sound = TEXTURES[texture](rng, (288, 320))

        damaged, extent = paint(sound, DEFECTS[kind](rng, sound, 0.8), light_xy=(0.6, -0.8))

        change = np.abs(damaged - sound).mean(axis=2)
        assert extent.any()
        assert change[extent].mean() > 0.8 * FAINTEST_CHANGE
        assert np.abs(change[cv2.dilate(extent.astype(np.uint8), np.ones((11, 11), np.uint8)) == 0]).max() == 0


@pytest.mark.parametrize("texture", sorted(TEXTURES))
def test_a_sound_material_is_neither_flat_nor_clipped(texture):
    surface = TEXTURES[texture](np.random.Generator(np.random.PCG64(1)), (300, 280))

    assert surface.shape == (300, 280, 3)
    assert surface.dtype == np.float32
    assert surface.std() > 0.02
    assert ((surface > 0.12) & (surface < 0.95)).mean() > 0.98
