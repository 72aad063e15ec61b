"""What the memory benchmark says of its samples."""

from __future__ import annotations

import pytest

from benchmarks.memory import Sample, slope_per_1000


def _sample(images, total_mb):
    return Sample(seconds=float(images), images=images, total_mb=total_mb, largest_mb=total_mb)


def test_what_memory_does_during_the_warm_up_is_no_slope():
    warm_up = [_sample(0, 300.0), _sample(500, 700.0), _sample(1500, 900.0)]
    after = [_sample(images, 900.0 + 0.002 * (images - 2000)) for images in range(2000, 10_001, 500)]

    rise = slope_per_1000([*warm_up, *after])

    assert rise == pytest.approx(2.0)
