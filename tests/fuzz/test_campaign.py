"""A short campaign over every kind of input from outside; the long one is ``make fuzz``."""

from __future__ import annotations

import pytest

from tests.fuzz.__main__ import settings_of
from tests.fuzz.campaign import run_kind

SEED = 20261123
COUNTS = {
    "images": 2400,
    "isolated": 150,
    "labels": 1000,
    "archives": 400,
    "manifests": 300,
    "annotations": 300,
    "models": 100,
}


@pytest.mark.parametrize(("kind", "count"), COUNTS.items(), ids=COUNTS.keys())
def test_every_damaged_input_ends_well_or_by_name(kind, count):
    report = run_kind(kind, count=count, seed=SEED)

    assert report.broken == []
    assert sum(report.outcomes.values()) == count
    assert len(report.outcomes) > 1
    assert report.outcomes["ok, damaged behind its pixels"] <= count / 500


def test_every_damaged_request_is_answered_in_our_words(connections):
    report = run_kind("requests", count=350, seed=SEED, settings=settings_of(connections))

    assert report.broken == []
    assert sum(report.outcomes.values()) == 350
    assert {outcome.split()[0] for outcome in report.outcomes} >= {"200", "404", "422"}


def test_a_campaign_notices_crashes_hangs_memory_and_nameless_exceptions():
    report = run_kind("self-test", count=9, seed=SEED, hang_s=5)

    assert report.outcomes == {"ok": 4}
    assert [(each.index, each.how) for each in report.broken] == [
        (1, "ended by signal 11; no trace"),
        (3, "took longer than 5 s; no trace"),
        (5, "ended by an exception; MemoryError"),
        (6, "ended by an exception; KeyError: 'no name'"),
        (7, "ended by an exception; tests.fuzz.targets.Violation: as asked"),
    ]
