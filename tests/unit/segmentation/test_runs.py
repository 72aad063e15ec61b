from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from defectoscope.segmentation.runs import Regions, connect, find_runs

# Up to three bytes wide, because pixels are looked at eight at a time.
MASKS = hnp.array_shapes(min_dims=2, max_dims=2, max_side=25).flatmap(
    lambda shape: hnp.arrays(np.uint8, shape, elements=st.sampled_from([0, 0, 1, 255, 255]))
)


@settings(max_examples=300, deadline=None)
@given(mask=MASKS)
def test_runs_hold_every_defect_pixel_and_no_other(mask):
    levels = np.random.default_rng(mask.size).integers(0, 256, mask.shape, dtype=np.uint8)

    runs = find_runs(mask, levels)

    expected = []
    for y, row in enumerate(mask):
        for piece in np.split(np.arange(len(row)), np.flatnonzero(np.diff(row != 0)) + 1):
            if row[piece[0]]:
                of_piece = levels[y, piece]
                expected.append((y, piece[0], len(piece), of_piece.max(), of_piece.sum()))
    assert list(zip(runs.y, runs.x, runs.length, runs.highest, runs.summed, strict=True)) == expected


@settings(max_examples=400, deadline=None)
@given(mask=MASKS, batch_runs=st.integers(1, 30))
def test_batches_change_nothing(mask, batch_runs):
    runs = find_runs(mask, mask)

    batched = connect(runs, width=mask.shape[1], batch_runs=batch_runs)

    whole = connect(runs, width=mask.shape[1])
    for field in dataclasses.fields(Regions):
        np.testing.assert_array_equal(getattr(batched, field.name), getattr(whole, field.name))


@pytest.mark.parametrize("batch_runs", [1, 7, 10_000])
def test_a_region_that_winds_through_all_rows_is_one_region(batch_runs):
    mask = np.zeros((400, 300), dtype=np.uint8)
    mask[::2] = 255
    mask[1::4, -1] = 255
    mask[3::4, 0] = 255

    regions = connect(find_runs(mask, mask), width=300, batch_runs=batch_runs)

    assert regions.first_run.tolist() == [0]


@pytest.mark.parametrize("density", [0.1, 0.4, 0.6])
def test_noise_has_the_regions_that_opencv_finds(density):
    mask = np.where(np.random.default_rng(7).random((300, 400)) < density, 255, 0).astype(np.uint8)

    runs = find_runs(mask, mask)
    regions = connect(runs, width=400, batch_runs=5000)

    count, labels = cv2.connectedComponents(mask, connectivity=8)
    assert len(regions.first_run) == count - 1
    pairs = set(zip(regions.of_run.tolist(), labels[runs.y, runs.x].tolist(), strict=True))
    assert len(pairs) == count - 1
