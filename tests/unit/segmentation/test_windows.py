from __future__ import annotations

from itertools import combinations

import cv2
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from defectoscope.segmentation import find_defects
from defectoscope.segmentation.windows import split_windows

SHAPE_HW = (700, 900)
BOXES = st.lists(
    st.tuples(st.integers(0, 899), st.integers(0, 699), st.integers(1, 120), st.integers(1, 120)), max_size=7
)


def draw(boxes):
    mask = np.zeros(SHAPE_HW, dtype=np.uint8)
    for left, top, width, height in boxes:
        mask[top : top + height, left : left + width] = 255
    return mask


def test_a_blank_mask_has_no_windows():
    assert split_windows(np.zeros((40, 30), dtype=np.uint8)) == []


def test_specks_in_opposite_corners_are_looked_at_alone():
    mask = draw([(10, 20, 3, 4), (880, 690, 5, 2)])

    assert split_windows(mask) == [(10, 20, 13, 24), (880, 690, 885, 692)]


def test_specks_near_each_other_share_a_window():
    mask = draw([(100, 100, 3, 3), (110, 100, 3, 3), (100, 120, 3, 3)])

    assert split_windows(mask) == [(100, 100, 113, 123)]


def test_a_cut_may_open_the_way_for_the_next():
    # The bar at the bottom closes every gap between the columns above it until the rows are cut.
    mask = draw([(0, 0, 2, 100), (898, 0, 2, 100), (0, 690, 900, 10)])

    assert split_windows(mask) == [(0, 0, 2, 100), (898, 0, 900, 100), (0, 690, 900, 700)]


@settings(deadline=None)
@given(boxes=BOXES)
def test_windows_hold_every_defect_pixel_and_never_touch(boxes):
    mask = draw(boxes)

    windows = split_windows(mask)

    held = np.zeros_like(mask)
    for left, top, right, bottom in windows:
        held[top:bottom, left:right] = mask[top:bottom, left:right]
    np.testing.assert_array_equal(held, mask)
    for one, other in combinations(windows, 2):
        assert one[2] < other[0] or other[2] < one[0] or one[3] < other[1] or other[3] < one[1]


@settings(deadline=None)
@given(boxes=BOXES, min_area_px=st.sampled_from([1, 400]))
def test_defects_do_not_depend_on_the_windows(boxes, min_area_px):
    mask = draw(boxes)
    levels = np.where(mask, np.random.default_rng(len(boxes)).integers(1, 256, SHAPE_HW), 0).astype(np.uint8)

    kept, defects = find_defects(mask, levels, min_area_px=min_area_px)

    count, regions, stats, centroids = cv2.connectedComponentsWithStats(mask, connectivity=8)
    expected = [
        (
            -stats[region, cv2.CC_STAT_AREA],
            int(np.flatnonzero(regions == region)[0]),
            tuple(centroids[region].round(6)),
            int(levels[regions == region].max()),
        )
        for region in range(1, count)
        if stats[region, cv2.CC_STAT_AREA] >= min_area_px
    ]
    assert [
        (-defect.area_px, tuple(np.round(defect.centroid_xy, 6)), round(defect.max_probability * 255))
        for defect in defects
    ] == [(area, centroid, highest) for area, _, centroid, highest in sorted(expected)]
    assert np.count_nonzero(kept) == sum(defect.area_px for defect in defects)
    assert find_defects(mask, levels, min_area_px=min_area_px, in_place=True) == (mask, defects)
    np.testing.assert_array_equal(mask, kept)
