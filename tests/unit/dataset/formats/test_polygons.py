from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_api

from defectoscope.dataset.formats.polygons import fill_polygon, read_points
from defectoscope.dataset.formats.run_lengths import decode_text
from defectoscope.errors.images import PolygonInvalid

HEIGHT, WIDTH = 23, 31


def fill(points):
    region = np.zeros((HEIGHT, WIDTH), dtype=np.bool_)
    left, inside = fill_polygon(points, shape_hw=region.shape)
    region[:, left : left + len(inside)] = inside.T
    return region


def fill_by_api(points):
    [run_lengths] = coco_api.frPyObjects([[value for point in points for value in point]], HEIGHT, WIDTH)
    # Its own decoder warns about numpy 2.
    counts = decode_text(run_lengths["counts"].decode())
    return np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(WIDTH, HEIGHT).T


@given(
    points=st.lists(
        st.tuples(st.floats(-9, 40, allow_nan=False, width=32), st.floats(-9, 32, allow_nan=False, width=32)),
        min_size=3,
        max_size=9,
    )
)
@settings(max_examples=400)
def test_a_polygon_covers_the_pixels_that_the_coco_api_gives_it(points):
    np.testing.assert_array_equal(fill(points), fill_by_api(points))


@pytest.mark.parametrize(
    "points",
    [
        pytest.param([(0, 0), (WIDTH, 0), (WIDTH, HEIGHT), (0, HEIGHT)], id="whole-image"),
        pytest.param([(2, 3), (2, 3), (9, 3), (9, 8), (2, 8)], id="corner-twice"),
        pytest.param([(5, 5), (5, 5), (5, 5)], id="one-place"),
        pytest.param([(1, 1), (20, 20), (20, 1), (1, 20)], id="crossing-itself"),
    ],
)
def test_a_special_polygon_covers_the_pixels_that_the_coco_api_gives_it(points):
    np.testing.assert_array_equal(fill(points), fill_by_api(points))


def test_a_rectangle_covers_its_pixels():
    expected = np.zeros((HEIGHT, WIDTH), dtype=np.bool_)
    expected[3:8, 2:9] = True

    np.testing.assert_array_equal(fill([(2, 3), (9, 3), (9, 8), (2, 8)]), expected)


@pytest.mark.parametrize(
    "points",
    [
        pytest.param([(0, 0), (1e9, 0), (0, 5)], id="far-right"),
        pytest.param([(0, 0), (5, 0), (0, -24)], id="far-above"),
    ],
)
def test_a_polygon_far_outside_is_refused(points):
    with pytest.raises(PolygonInvalid, match="the image has 31 x 23 pixels"):
        fill(points)


def test_points_are_read_flat_or_in_pairs():
    expected = [(1.0, 2.0), (3.0, 4.0), (5.0, 6.5)]

    assert read_points([1, 2, 3, 4, 5, 6.5]) == expected
    assert read_points([[1, 2], [3, 4], [5, 6.5]]) == expected


@pytest.mark.parametrize(
    ("values", "message"),
    [
        pytest.param([], "has 0 points", id="nothing"),
        pytest.param([1, 2, 3, 4], "has 2 points; it needs three", id="two-points"),
        pytest.param([1, 2, 3, 4, 5], "one coordinate only", id="odd"),
        pytest.param([1, 2, 3, 4, 5, float("nan")], "not a finite number", id="nan"),
        pytest.param([1, 2, 3, 4, 5, float("inf")], "not a finite number", id="infinity"),
        pytest.param([1, 2, 3, 4, 5, 10**400], "not a finite number", id="beyond-floats"),
        pytest.param([1, 2, 3, 4, 5, "6"], "not a finite number", id="text"),
        pytest.param([[1, 2], [3, 4], [5]], "not two coordinates", id="short-point"),
    ],
)
def test_values_that_are_no_polygon_are_refused(values, message):
    with pytest.raises(PolygonInvalid, match=message):
        read_points(values)
