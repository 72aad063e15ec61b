from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from defectoscope.segmentation.measures import Measures, measure_window

MASKS = hnp.array_shapes(min_dims=2, max_dims=2, max_side=14).flatmap(
    lambda shape: hnp.arrays(np.uint8, shape, elements=st.sampled_from([0, 255, 255]))
)


def measure(mask, *, band_px, min_area_px=1):
    """The measures in the order of the regions' first pixels, and the pixels that were kept."""
    kept = np.zeros_like(mask)
    levels = np.random.default_rng(mask.size).integers(1, 256, mask.shape, dtype=np.uint8)
    found = measure_window(mask, levels, kept, origin_xy=(1000, 2000), min_area_px=min_area_px, band_px=band_px)
    if found is None:
        return None, kept
    order = np.lexsort((found.first_x, found.first_y))
    return [getattr(found, field.name)[order] for field in dataclasses.fields(Measures)], kept


@settings(max_examples=400, deadline=None)
@given(mask=MASKS, band_px=st.integers(1, 60), min_area_px=st.integers(1, 9))
def test_bands_change_nothing(mask, band_px, min_area_px):
    banded, kept_banded = measure(mask, band_px=band_px, min_area_px=min_area_px)

    whole, kept_whole = measure(mask, band_px=mask.size, min_area_px=min_area_px)

    np.testing.assert_array_equal(kept_banded, kept_whole)
    assert (banded is None) == (whole is None)
    for ours, theirs in zip(banded or [], whole or [], strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("band_px", [1, 300, 1200])
def test_a_region_that_winds_through_every_band_is_one_region(band_px):
    mask = np.zeros((400, 300), dtype=np.uint8)
    mask[::2] = 255
    mask[1::4, -1] = 255
    mask[3::4, 0] = 255

    found, kept = measure(mask, band_px=band_px)

    areas = found[[field.name for field in dataclasses.fields(Measures)].index("area")]
    assert areas.tolist() == [200 * 300 + 200]
    np.testing.assert_array_equal(kept, mask)
