from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from defectoscope.segmentation import find_defects

MASKS = hnp.array_shapes(min_dims=2, max_dims=2, max_side=9).flatmap(
    lambda shape: hnp.arrays(np.uint8, shape, elements=st.sampled_from([0, 0, 255]))
)


def flood(mask):
    """The regions of a mask as lists of (y, x), by naive flood filling from the top left."""
    open_pixels = {(int(y), int(x)) for y, x in np.argwhere(mask)}
    regions = []
    for start in sorted(open_pixels):
        if start not in open_pixels:
            continue
        open_pixels.discard(start)
        region, border = [start], [start]
        while border:
            y, x = border.pop()
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & open_pixels
            open_pixels -= near
            region += near
            border += near
        regions.append(sorted(region))
    return sorted(regions, key=lambda region: (-len(region), region[0]))


def measure(region):
    """Axes and covariance of a region from the eigenvectors of its second moments, pixel by pixel."""
    points = np.array(region, dtype=float)[:, ::-1]
    centred = points - points.mean(axis=0)
    moments = centred.T @ centred / len(points) + np.eye(2) / 12
    values, vectors = np.linalg.eigh(moments)
    return points.mean(axis=0), 4 * np.sqrt(values), vectors[:, 1]


def cross(region):
    """Crofton's perimeter from a walk along every line of four directions."""
    inside = set(region)
    total = 0.0
    for dy, dx, spacing in ((0, 1, 1.0), (1, 0, 1.0), (1, 1, math.sqrt(0.5)), (1, -1, math.sqrt(0.5))):
        crossings = sum(((y + s * dy, x + s * dx) not in inside) for y, x in region for s in (1, -1))
        total += crossings * spacing
    return total * math.pi / 8


@settings(max_examples=300, deadline=None)
@given(mask=MASKS, min_area_px=st.integers(0, 6), data=st.data())
def test_defects_are_what_naive_flood_filling_finds(mask, min_area_px, data):
    probabilities = data.draw(hnp.arrays(np.uint8, mask.shape))
    expected = [region for region in flood(mask) if len(region) >= min_area_px]

    kept, defects = find_defects(mask, probabilities, min_area_px=min_area_px)

    assert [defect.number for defect in defects] == list(range(1, len(expected) + 1))
    assert sum(defect.area_px for defect in defects) == np.count_nonzero(kept)
    assert {(int(y), int(x)) for y, x in np.argwhere(kept == 255)} == {pixel for region in expected for pixel in region}
    assert set(np.unique(kept)) <= {0, 255}
    for defect, region in zip(defects, expected, strict=True):
        ys, xs = [y for y, _ in region], [x for _, x in region]
        levels = [int(probabilities[pixel]) for pixel in region]
        centroid, axes, direction = measure(region)
        assert defect.area_px == len(region)
        assert defect.box_xyxy == (min(xs), min(ys), max(xs) + 1, max(ys) + 1)
        assert defect.centroid_xy == pytest.approx(tuple(centroid))
        assert (defect.minor_axis_px, defect.major_axis_px) == pytest.approx(tuple(axes), abs=1e-6)
        assert defect.perimeter_px == pytest.approx(cross(region))
        assert defect.max_probability == max(levels) / 255
        assert defect.mean_probability == pytest.approx(sum(levels) / len(levels) / 255)
        assert defect.touches_border == (
            min(xs) == 0 or min(ys) == 0 or max(xs) == mask.shape[1] - 1 or max(ys) == mask.shape[0] - 1
        )
        assert -90 < defect.orientation_deg <= 90
        if axes[1] - axes[0] > 1e-3:
            angle = math.radians(defect.orientation_deg)
            assert abs(math.cos(angle) * direction[0] + math.sin(angle) * direction[1]) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    ("end_xy", "orientation_deg"),
    [
        pytest.param((40, 20), 0.0, id="along-x"),
        pytest.param((20, 40), 90.0, id="along-y"),
        pytest.param((20, 0), 90.0, id="against-y"),
        pytest.param((40, 40), 45.0, id="down-to-the-right"),
        pytest.param((40, 0), -45.0, id="up-to-the-right"),
    ],
)
def test_the_orientation_of_a_scratch_is_measured_against_x_with_y_down(end_xy, orientation_deg):
    mask = np.zeros((41, 41), dtype=np.uint8)
    cv2.line(mask, (20, 20), end_xy, 255)

    _, (defect,) = find_defects(mask, mask, min_area_px=1)

    assert defect.orientation_deg == pytest.approx(orientation_deg)
    assert defect.minor_axis_px < 2
    assert defect.major_axis_px > 20


def test_the_ellipse_and_the_perimeter_of_a_disc_are_those_of_a_circle():
    y, x = np.mgrid[:141, :141]
    mask = np.where((x - 70) ** 2 + (y - 70) ** 2 <= 60**2, 255, 0).astype(np.uint8)

    _, (defect,) = find_defects(mask, mask, min_area_px=1)

    assert defect.centroid_xy == (70, 70)
    assert defect.major_axis_px == pytest.approx(120, rel=0.005)
    assert defect.minor_axis_px == pytest.approx(120, rel=0.005)
    assert defect.orientation_deg == 0
    assert defect.perimeter_px == pytest.approx(2 * math.pi * 60, rel=0.01)


def test_the_edge_of_a_hole_belongs_to_the_perimeter():
    solid = np.zeros((9, 9), dtype=np.uint8)
    solid[1:8, 1:8] = 255
    pierced = solid.copy()
    pierced[4, 4] = 0

    _, (whole,) = find_defects(solid, solid, min_area_px=1)
    _, (ring,) = find_defects(pierced, pierced, min_area_px=1)

    assert ring.area_px == whole.area_px - 1
    assert ring.perimeter_px == pytest.approx(whole.perimeter_px + math.pi / 8 * (4 + 4 / math.sqrt(2)))


def test_a_blank_mask_yields_no_defects():
    mask = np.zeros((5, 7), dtype=np.uint8)

    kept, defects = find_defects(mask, mask, min_area_px=1)

    assert defects == []
    assert kept.shape == (5, 7)
    assert not kept.any()


def test_the_given_mask_is_left_alone():
    mask = np.array([[255, 0, 255, 255]], dtype=np.uint8)

    kept, defects = find_defects(mask, mask, min_area_px=2)

    assert mask.tolist() == [[255, 0, 255, 255]]
    assert kept.tolist() == [[0, 0, 255, 255]]
    assert [defect.area_px for defect in defects] == [2]


def test_equal_areas_are_numbered_from_the_top_left():
    mask = np.array([[0, 0, 0, 255], [255, 0, 0, 0], [0, 0, 255, 0], [255, 0, 0, 0]], dtype=np.uint8)
    mask = np.kron(mask, np.array([[1, 0], [0, 0]], dtype=np.uint8))

    _, defects = find_defects(mask, mask, min_area_px=1)

    assert [defect.box_xyxy[:2] for defect in defects] == [(6, 0), (0, 2), (4, 4), (0, 6)]


def test_fifty_thousand_specks_are_all_measured():
    mask = np.zeros((500, 400), dtype=np.uint8)
    mask[::2, ::2] = 255

    kept, defects = find_defects(mask, mask, min_area_px=1)

    assert len(defects) == 50_000
    assert np.count_nonzero(kept) == 50_000
    assert defects[-1].box_xyxy == (398, 498, 399, 499)
    assert {defect.area_px for defect in defects} == {1}


@settings(deadline=None)
@given(
    boxes=st.lists(
        st.tuples(st.integers(0, 899), st.integers(0, 699), st.integers(1, 120), st.integers(1, 120)), max_size=7
    ),
    min_area_px=st.sampled_from([1, 400]),
)
def test_defects_of_a_large_image_are_those_that_opencv_finds(boxes, min_area_px):
    mask = np.zeros((700, 900), dtype=np.uint8)
    for left, top, width, height in boxes:
        mask[top : top + height, left : left + width] = 255
    levels = np.where(mask, np.random.default_rng(len(boxes)).integers(1, 256, mask.shape), 0).astype(np.uint8)

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
