"""A short seed of `make faults`: about a minute in which everything that matters dies once."""

from __future__ import annotations

import pytest

from tests.faults.faults import Part, count_kills, draw_schedule, draw_short_schedule
from tests.faults.fleet import LEASE_S
from tests.faults.report import tell_seed
from tests.faults.seed_run import percentile, run_seed

#: Another one breaks the same things in another order.
SEED = 11


# A minute of faults, the jobs that are owed then, and the same jobs again without faults.
@pytest.mark.timeout(600)
def test_whatever_dies_every_accepted_image_ends_once_and_as_without_faults(servers, scratch):
    faults = draw_short_schedule(SEED, lease_s=LEASE_S)

    outcome = run_seed(SEED, faults, servers=servers, scratch=scratch)

    verdict = outcome.verdict
    assert verdict.is_kept, tell_seed(outcome)
    assert verdict.accepted > 100
    assert outcome.telling.flaws == {}, tell_seed(outcome)
    assert outcome.telling.told == outcome.jobs
    assert outcome.kills == count_kills(faults) >= 7
    # One run has too few for a percentile: the median here, p95 in `make faults`.
    assert percentile(outcome.recoveries_s[Part.ALONE], 50) < LEASE_S + 15, tell_seed(outcome)


def test_five_seeds_kill_everything_sixty_times_and_more():
    schedules = [draw_schedule(seed, lease_s=LEASE_S) for seed in range(1, 6)]

    targets = {fault.target for faults in schedules for fault in faults if fault.act == "kill"}

    assert sum(count_kills(faults) for faults in schedules) >= 60
    assert {"worker", "api", "beat", "valkey", "postgresql"} <= targets
    assert draw_schedule(1, lease_s=LEASE_S) == schedules[0]
