"""What the gate promises, measured on simulated nights: it rarely lets worse versions in, and good ones do get in.

The false-promotion rate is that of a challenger worse by twice the margin. Measured once with 1000 to 3000 nights for
each way of being worse (everywhere, more misses, more false calls, better on most images and blind to more), the rate
of the worst way in percent:

    groups                  10    20    30    50   100   200   400
    falsely promoted        0.1   0.9   1.4   1.2  1.7   1.3   1.1
    by a plain bootstrap    25   9.8   6.4   4.2   2.8   2.3   1.5

Power, the share of nights on which a challenger better everywhere by this much is promoted, in percent of 200 nights;
sampling noise limits it, the standard deviation of the mean difference being 0.025, 0.013 and 0.006:

    groups                  30   100   400
    better by 0.00           6     9    18
    better by 0.01          11    22    74
    better by 0.02          18    51   100
    better by 0.04          41    88   100
    better by 0.08          77    96   100
"""

from __future__ import annotations

import numpy as np
import pytest

from defectoscope.registry.gate import judge
from defectoscope.registry.gate_rules import GateRules
from tests.unit.registry.nights import Night, Version

#: Fewer resamples than in service: the bounds jitter a little more, and thousands of nights take seconds.
RULES = GateRules(resamples=400)
NIGHTS = 1_000
#: If a gate let 5 % pass, 34 or fewer of 1000 nights would show with a probability of 1 % (binomial).
MOST_FALSE_PROMOTIONS = 34
WAYS = ["everywhere", "misses", "false calls", "trade"]


def _is_promoted(night, *, challenger, champion, best_ever=None, rules=RULES):
    """Judge a night. A lower mean is refused whatever else is true (see test_gate), and asked no further: most are."""
    if (challenger - champion).mean() < 0:
        return None
    return judge(
        night.images,
        challenger=night.counts(challenger),
        champion=night.counts(champion),
        best_ever=None if best_ever is None else night.counts(best_ever),
        rules=rules,
    )


def _count_promotions(*, groups, by, way, nights, rules=RULES):
    rng = np.random.default_rng([groups, nights])
    champion = Version()
    challenger = champion.better(by, way=way)
    assert challenger.quality - champion.quality == pytest.approx(by)
    promotions = 0
    for _ in range(nights):
        night = Night(groups=groups, rng=rng)
        decision = _is_promoted(night, challenger=night.score(challenger), champion=night.score(champion), rules=rules)
        promotions += decision is not None and decision.promoted
    return promotions


def test_the_simulated_scores_have_the_quality_that_is_claimed_and_look_like_real_ones():
    rng = np.random.default_rng(1)
    version = Version()
    nights = [Night(groups=2_000, rng=rng) for _ in range(10)]
    scores = np.concatenate([night.score(version) for night in nights])
    on_defects = np.concatenate([night.label_px for night in nights]) > 0

    assert scores.mean() == pytest.approx(version.quality, abs=0.006)
    assert 0.45 < np.mean(scores == 1.0) < 0.5
    assert np.mean(scores[on_defects] == 0.0) == pytest.approx(version.misses, abs=0.01)
    # Images of one part resemble each other: their means scatter more than those of unrelated images would.
    first = nights[0]
    of_parts = np.bincount(first.group_of, weights=first.score(version)) / np.bincount(first.group_of)
    assert of_parts.std() > 0.75 * scores.std()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("groups", [30, 100, 400])
def test_a_challenger_worse_by_twice_the_margin_is_promoted_on_fewer_than_one_night_in_twenty(groups, way):
    promotions = _count_promotions(groups=groups, by=-2 * RULES.margin, way=way, nights=NIGHTS)

    assert promotions <= MOST_FALSE_PROMOTIONS


def test_the_plain_bootstrap_would_break_that_promise_on_few_groups():
    plain = GateRules(resamples=400, unseen_loss=0)

    promotions = _count_promotions(groups=20, by=-2 * plain.margin, way="false calls", nights=NIGHTS, rules=plain)

    # If 5 % were let pass, 66 or more of 1000 nights would show with a probability of 2 %.
    assert promotions >= 66


@pytest.mark.parametrize(
    ("groups", "by", "way", "least_share"),
    [
        pytest.param(30, 0.08, "everywhere", 0.60, id="30 groups, 0.08"),
        pytest.param(100, 0.04, "everywhere", 0.75, id="100 groups, 0.04"),
        pytest.param(400, 0.01, "everywhere", 0.60, id="400 groups, 0.01"),
        pytest.param(400, 0.02, "everywhere", 0.95, id="400 groups, 0.02"),
        pytest.param(400, 0.02, "misses", 0.90, id="400 groups, 0.02 by fewer misses"),
        pytest.param(400, 0.02, "false calls", 0.80, id="400 groups, 0.02 by fewer false calls"),
    ],
)
def test_a_better_challenger_is_promoted_at_the_stated_rate(groups, by, way, least_share):
    nights = 150

    promotions = _count_promotions(groups=groups, by=by, way=way, nights=nights)

    assert promotions >= least_share * nights


def _equal(champion, rng):
    return champion.better(rng.normal(0, RULES.margin), way="everywhere")


def _just_within_the_margin(champion, _):
    return champion.better(-0.98 * RULES.margin, way="everywhere")


def _decline(*, challenge, groups, runs, rules=RULES, nights=20):
    """Return how far the true quality of the champion of the last night is below the best that ever served, (runs,)."""
    declines = []
    for run in range(runs):
        rng = np.random.default_rng([groups, run])
        champion = best = Version()
        top = champion.quality
        for _ in range(nights):
            night = Night(groups=groups, rng=rng)
            challenger = challenge(champion, rng)
            decision = _is_promoted(
                night,
                challenger=night.score(challenger),
                champion=night.score(champion),
                best_ever=None if best is champion else night.score(best),
                rules=rules,
            )
            if decision is not None and decision.promoted:
                champion = challenger
                top = max(top, champion.quality)
                best = champion if decision.is_new_best else best
        declines.append(top - champion.quality)
    return np.array(declines)


@pytest.mark.parametrize(
    ("challenge", "groups", "runs"),
    [
        pytest.param(_equal, 100, 60, id="equal but for noise, 100 groups"),
        pytest.param(_just_within_the_margin, 100, 100, id="each worse by just under the margin, 100 groups"),
        pytest.param(_just_within_the_margin, 400, 40, id="each worse by just under the margin, 400 groups"),
    ],
)
def test_twenty_nights_leave_the_champion_within_twice_the_margin_of_the_best_ever(challenge, groups, runs):
    declines = _decline(challenge=challenge, groups=groups, runs=runs)

    assert np.mean(declines <= 2 * RULES.margin) >= 0.95


def test_without_the_ratchet_small_losses_add_up():
    """A wide margin makes the drift quick: each challenger is truly worse than its champion by half of it."""
    margin = 0.02
    rules = {"resamples": 200, "margin": margin, "slice_margin": 1.0}

    def half_a_margin_worse(champion, _):
        return champion.better(-margin / 2, way="everywhere")

    guarded, loose = (
        _decline(challenge=half_a_margin_worse, groups=100, runs=50, rules=GateRules(**rules, ratchet=ratchet))
        for ratchet in (True, False)
    )

    assert np.mean(guarded <= 2 * margin) >= 0.95
    assert loose.mean() > 1.25 * guarded.mean()
    assert loose.max() > guarded.max()
