"""Copies of a picture are found, pictures of other things are not, and a fixed camera does not make them one group."""

from __future__ import annotations

import io
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from defectoscope.dataset.similarity import (
    FLAT,
    LARGEST_CROWD,
    MAX_DISTANCE,
    distance,
    find_alike,
    perceptual_hash,
)
from defectoscope.samples import draw_sample

SIZE = (256, 256)


@pytest.fixture(scope="module")
def pictures():
    return [draw_sample(seed=1, number=number).pixels for number in range(40)]


def _as_jpeg(pixels, quality):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return np.array(Image.open(file).convert("RGB"))


def _resized(pixels, factor):
    height, width = pixels.shape[:2]
    return np.array(Image.fromarray(pixels).resize((round(width * factor), round(height * factor))))


def _brighter(pixels, levels):
    return np.clip(pixels.astype(int) + levels, 0, 255).astype(np.uint8)


def _flip(value, bits):
    """Turn some bits of a signed 64-bit hash over."""
    for bit in bits:
        value ^= 1 << bit
    return value


@pytest.mark.parametrize(
    "copy",
    [
        pytest.param(lambda pixels: _as_jpeg(pixels, 90), id="jpeg-90"),
        pytest.param(lambda pixels: _as_jpeg(pixels, 50), id="jpeg-50"),
        pytest.param(lambda pixels: _resized(pixels, 0.9), id="a-little-smaller"),
        pytest.param(lambda pixels: _resized(pixels, 1.25), id="larger"),
        pytest.param(lambda pixels: _brighter(pixels, 12), id="brighter"),
        pytest.param(lambda pixels: _brighter(pixels, -12), id="darker"),
        pytest.param(lambda pixels: _as_jpeg(_brighter(_resized(pixels, 0.9), 8), 75), id="all-at-once"),
    ],
)
def test_a_copy_is_a_near_duplicate_of_its_original(pictures, copy):
    distances = [distance(perceptual_hash(pixels), perceptual_hash(copy(pixels))) for pixels in pictures]

    assert max(distances) <= MAX_DISTANCE


def test_pictures_of_different_things_are_no_near_duplicates(pictures):
    hashes = [perceptual_hash(pixels) for pixels in pictures]

    alike = find_alike(hashes, [SIZE] * len(hashes))

    assert FLAT not in hashes
    assert (alike.pairs, alike.crowded) == ([], frozenset())


@pytest.mark.parametrize(
    "pixels",
    [
        pytest.param(np.full((64, 80, 3), 130, dtype=np.uint8), id="one-colour"),
        pytest.param(
            np.random.default_rng(0).integers(120, 136, (300, 300, 3), dtype=np.uint8), id="noise-without-shapes"
        ),
        pytest.param(np.zeros((1, 1, 3), dtype=np.uint8), id="one-pixel"),
    ],
)
def test_a_flat_image_has_no_hash_and_is_like_no_other(pixels):
    flat = perceptual_hash(pixels)

    alike = find_alike([flat, flat, None, None], [SIZE] * 4)

    assert flat == FLAT
    assert alike.pairs == []


def test_pictures_of_different_shape_are_no_copies(pictures):
    value = perceptual_hash(pictures[0])

    alike = find_alike([value, value, value], [(200, 100), (205, 100), (100, 100)])

    assert alike.pairs == [(0, 1)]


@given(
    centre=st.integers(-(2**63), 2**63 - 1).filter(bool),
    flips=st.lists(st.lists(st.integers(0, 62), max_size=12), min_size=2, max_size=11),
)
def test_the_search_by_bands_finds_what_comparing_all_pairs_finds(centre, flips):
    hashes = [value for value in (_flip(centre, bits) for bits in flips) if value != FLAT]

    alike = find_alike(hashes, [SIZE] * len(hashes))

    assert alike.pairs == [
        (i, j) for i, j in combinations(range(len(hashes)), 2) if distance(hashes[i], hashes[j]) <= MAX_DISTANCE
    ]


def test_a_crowd_is_taken_apart_by_smaller_distances():
    rng = np.random.default_rng(3)
    crowd = [_flip(0x0F0F_3355_00FF_1234, rng.choice(60, 3, replace=False).tolist()) for _ in range(60)]
    copies = [crowd[0], crowd[7]]

    alike = find_alike([*crowd, *copies], [SIZE] * 62)

    near = sum(distance(a, b) <= MAX_DISTANCE for a, b in combinations(crowd, 2))
    assert near == 60 * 59 / 2
    assert {(0, 60), (7, 61)} <= set(alike.pairs)
    assert len(alike.pairs) < 62
    assert alike.crowded == frozenset()


def test_equal_hashes_of_too_many_images_tell_nothing():
    crowd = [0x0F0F_3355_00FF_1234] * (LARGEST_CROWD + 1)
    others = [0x5A5A_0000_FFFF_1111, 0x5A5A_0000_FFFF_1110]

    alike = find_alike([*crowd, *others], [SIZE] * (len(crowd) + 2))

    assert alike.pairs == [(len(crowd), len(crowd) + 1)]
    assert alike.crowded == frozenset(range(len(crowd)))


def test_as_many_as_may_be_one_group_are_one():
    alike = find_alike([77] * LARGEST_CROWD, [SIZE] * LARGEST_CROWD)

    assert len(alike.pairs) == LARGEST_CROWD * (LARGEST_CROWD - 1) / 2
    assert alike.crowded == frozenset()
