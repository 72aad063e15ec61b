"""The interval of a mean over images: drawn by groups, the same every time, and within bounded memory."""

from __future__ import annotations

import json
import tracemalloc

import numpy as np
import pytest

from defectoscope.errors.api import InvalidRequest
from defectoscope.registry.bootstrap import bootstrap_mean


def _each_alone(values):
    return [str(row) for row in range(len(values))]


def test_many_independent_images_give_the_interval_of_the_normal_distribution():
    values = np.random.default_rng(3).normal(0.7, 0.2, size=2_000)
    standard_error = values.std() / np.sqrt(len(values))

    interval = bootstrap_mean(values, _each_alone(values), tail=0.025, resamples=4_000)

    assert interval.mean == pytest.approx(values.mean())
    assert interval.low == pytest.approx(values.mean() - 1.96 * standard_error, abs=0.15 * standard_error)
    assert interval.high == pytest.approx(values.mean() + 1.96 * standard_error, abs=0.15 * standard_error)
    assert (interval.images, interval.groups) == (2_000, 2_000)


def test_images_that_only_repeat_their_group_do_not_narrow_the_interval():
    of_groups = np.random.default_rng(4).normal(size=50)

    alone = bootstrap_mean(of_groups, _each_alone(of_groups), resamples=500)
    repeated = bootstrap_mean(np.repeat(of_groups, 9), np.repeat(_each_alone(of_groups), 9).tolist(), resamples=500)

    assert repeated.low == pytest.approx(alone.low)
    assert repeated.high == pytest.approx(alone.high)
    assert (repeated.images, repeated.groups) == (450, 50)


def test_every_image_weighs_the_same_also_in_groups_of_different_size():
    interval = bootstrap_mean(np.array([1.0, 0.0, 0.0, 0.0]), ["a", "b", "b", "b"], resamples=1_000)

    assert interval.mean == 0.25
    assert (interval.low, interval.high) == (0.0, 1.0)


def test_the_order_of_the_images_does_not_matter():
    rng = np.random.default_rng(5)
    values = rng.random(60)
    groups = [str(number) for number in rng.integers(20, size=60)]
    order = rng.permutation(60)

    straight = bootstrap_mean(values, groups, resamples=500)
    shuffled = bootstrap_mean(values[order], [groups[row] for row in order], resamples=500)

    assert shuffled.low == pytest.approx(straight.low, abs=1e-12)
    assert shuffled.high == pytest.approx(straight.high, abs=1e-12)


def test_the_size_of_the_blocks_does_not_leave_out_a_resample():
    values = np.linspace(0, 1, 30_000)

    interval = bootstrap_mean(values, _each_alone(values), resamples=100)

    # 33 resamples fit into a block; a block that was never filled would give a mean that is not a number.
    assert 0.49 < interval.low < 0.5 < interval.high < 0.51


def test_values_that_are_all_alike_leave_no_doubt_but_that_of_the_pseudo_groups():
    values = np.zeros(30)

    plain = bootstrap_mean(values, _each_alone(values))
    guarded = bootstrap_mean(values, _each_alone(values), tail=0.05, pseudo_groups=(-0.5, 0.5))

    assert (plain.low, plain.high) == (0.0, 0.0)
    # The sum of 32 draws has a standard deviation of about 0.7 groups' worth.
    assert guarded.mean == 0.0
    assert -0.045 < guarded.low < -0.025
    assert 0.025 < guarded.high < 0.045


def test_pseudo_groups_never_push_a_bound_past_the_mean():
    interval = bootstrap_mean(np.zeros(5), _each_alone(range(5)), tail=0.4, pseudo_groups=(1.0, 1.0, 1.0))

    assert interval.low == interval.mean == 0.0
    assert interval.high > 0


def test_a_rare_event_that_was_not_seen_still_has_an_upper_bound():
    escapes = np.zeros(20)

    interval = bootstrap_mean(escapes, _each_alone(escapes), tail=0.05, pseudo_groups=(0.0, 1.0))

    # Clopper and Pearson's exact bound for 0 of 20 is 0.139.
    assert interval.mean == 0.0
    assert 0.09 < interval.high < 0.16


def test_fifty_thousand_groups_stay_within_the_memory_of_a_block():
    values = np.random.default_rng(6).random(50_000)
    groups = _each_alone(values)
    tracemalloc.start()

    bootstrap_mean(values, groups, resamples=100)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak_bytes < 100e6


def test_an_interval_is_json_ready():
    interval = bootstrap_mean(np.array([0.5, 1.0]), ["a", "b"], resamples=10)

    assert json.loads(json.dumps(interval.to_json())) == {
        "mean": 0.75,
        "low": 0.5,
        "high": 1.0,
        "tail": 0.025,
        "images": 2,
        "groups": 2,
    }


@pytest.mark.parametrize(
    ("values", "groups", "parameters"),
    [
        pytest.param([], [], {}, id="no image"),
        pytest.param([1.0, 2.0], ["a"], {}, id="a group is missing"),
        pytest.param([1.0, float("nan")], ["a", "b"], {}, id="not a number"),
        pytest.param([1.0], ["a"], {"tail": 0.5}, id="a tail of one half"),
        pytest.param([1.0], ["a"], {"tail": 0.0}, id="no tail"),
        pytest.param([1.0], ["a"], {"resamples": 0}, id="no resample"),
    ],
)
def test_what_has_no_interval_is_refused(values, groups, parameters):
    with pytest.raises(InvalidRequest):
        bootstrap_mean(np.array(values), groups, **parameters)
