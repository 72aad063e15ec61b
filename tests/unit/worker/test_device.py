from __future__ import annotations

import os

import pytest

from worker.device import available_threads

CORES = len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        pytest.param("max 100000\n", CORES, id="no limit"),
        pytest.param("100000 100000\n", 1, id="one core"),
        pytest.param("50000 100000\n", 1, id="half a core"),
        pytest.param("10000000 100000\n", CORES, id="more than there are"),
        pytest.param("nonsense\n", CORES, id="unreadable"),
        pytest.param(None, CORES, id="no cgroup"),
    ],
)
def test_threads_follow_the_quota_of_the_container(tmp_path, written, expected):
    if written is not None:
        (tmp_path / "cpu.max").write_text(written)

    assert available_threads(tmp_path) == expected
