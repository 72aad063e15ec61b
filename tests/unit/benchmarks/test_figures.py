"""The arithmetic behind every printed figure."""

from __future__ import annotations

import pytest

from benchmarks.figures import median_ratio, percentile, share_of_linear, slope


def test_a_ratio_is_the_median_over_the_pairs_and_not_of_the_medians():
    slow, fast = [10.0, 20.0, 90.0], [10.0, 5.0, 30.0]

    ratio = median_ratio(slow, fast)

    assert ratio == 3.0


@pytest.mark.parametrize(
    ("slow", "fast"),
    [pytest.param([], [], id="no turn"), pytest.param([1.0, 2.0], [1.0], id="a turn without its pair")],
)
def test_turns_that_do_not_pair_up_have_no_ratio(slow, fast):
    with pytest.raises(ValueError, match=r"turn|argument"):
        median_ratio(slow, fast)


def test_the_slope_is_that_of_the_line_through_the_points():
    thousands = [0.0, 1.0, 2.0, 3.0]
    megabytes = [100.0, 102.5, 105.0, 107.5]

    rise = slope(thousands, megabytes)

    assert rise == pytest.approx(2.5)


def test_points_above_each_other_have_no_slope():
    with pytest.raises(ValueError, match="two different points"):
        slope([1.0, 1.0], [2.0, 3.0])


def test_the_share_of_linear_is_one_where_twice_the_workers_do_twice_the_images():
    shares = share_of_linear([10.0, 20.0, 30.0], [1, 2, 4])

    assert shares == [1.0, 1.0, 0.75]


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        pytest.param(0.5, 10.0, id="p50"),
        pytest.param(0.95, 19.0, id="p95"),
        pytest.param(0.951, 20.0, id="a little more"),
        pytest.param(1.0, 20.0, id="the most"),
    ],
)
def test_a_percentile_is_a_value_that_was_measured(share, expected):
    values = [float(value) for value in range(20, 0, -1)]

    found = percentile(values, share)

    assert found == expected


def test_nothing_has_no_percentile():
    with pytest.raises(ValueError, match="needs a value"):
        percentile([], 0.5)
