"""The pace: schedule, image size and budget follow from the epochs that will really come."""

from __future__ import annotations

import json

import pytest

from trainer.pace import Pace, learning_rate_part


def _run(pace, *, steps, seconds):
    """Train until the pace says it is over; give the progress of each step and the size of each epoch."""
    progress, sizes = [], []
    while not pace.is_over:
        sizes.append("half" if pace.is_half_size else "full")
        progress += [pace.step() for _ in range(steps)]
        pace.end_epoch(seconds(sizes[-1]))
    return progress, sizes


def test_without_a_budget_every_epoch_runs_and_progress_goes_from_0_to_1():
    progress, sizes = _run(Pace(epochs=4, steps_per_epoch=5), steps=5, seconds=lambda _: 1e9)

    assert sizes == ["full"] * 4
    assert (progress[0], progress[-1]) == (0.0, 1.0)
    assert progress == sorted(progress)


def test_a_budget_shortens_the_plan_and_the_schedule_still_ends_at_its_end():
    pace = Pace(epochs=50, steps_per_epoch=10, time_budget_s=100)

    progress, sizes = _run(pace, steps=10, seconds=lambda _: 9.0)

    assert len(sizes) == 11
    assert progress[-1] == 1.0
    assert pace.is_cut_short


def test_no_epoch_is_begun_that_would_end_after_the_budget():
    pace = Pace(epochs=50, steps_per_epoch=1, time_budget_s=25)

    _, sizes = _run(pace, steps=1, seconds=lambda _: 10.0)

    assert len(sizes) == 2


def test_one_epoch_that_was_held_up_does_not_end_the_training():
    seconds = iter([5.0, 5.0, 30.0, *[5.0] * 47])
    pace = Pace(epochs=50, steps_per_epoch=1, time_budget_s=80)

    _, sizes = _run(pace, steps=1, seconds=lambda _: next(seconds))

    assert len(sizes) > 8


def test_the_first_epoch_runs_whatever_the_budget():
    _, sizes = _run(Pace(epochs=5, steps_per_epoch=1, time_budget_s=1), steps=1, seconds=lambda _: 60.0)

    assert sizes == ["full"]


def test_half_size_comes_first_and_the_end_is_always_at_full_size():
    _, sizes = _run(Pace(epochs=10, steps_per_epoch=2, half_size_share=0.6), steps=2, seconds=lambda _: 1.0)

    assert sizes == ["half"] * 6 + ["full"] * 4


def test_a_budget_leaves_epochs_at_full_size_for_the_end():
    cost = {"half": 9.0, "full": 20.0}
    pace = Pace(epochs=10, steps_per_epoch=2, half_size_share=0.6, time_budget_s=80)

    _, sizes = _run(pace, steps=2, seconds=cost.get)

    assert sizes[-2:] == ["full", "full"]
    assert 60 <= sum(cost[size] for size in sizes) <= 80


@pytest.mark.parametrize(
    ("progress", "part"),
    [(0.0, 0.04), (0.3, 1.0), (1.0, 4e-6)],
    ids=["starts low", "peaks at three tenths", "ends near nothing"],
)
def test_one_cycle_climbs_and_falls(progress, part):
    assert learning_rate_part("one_cycle", progress) == pytest.approx(part)


def test_a_constant_rate_is_constant():
    assert {learning_rate_part("constant", step / 10) for step in range(11)} == {1.0}


def test_a_restored_pace_goes_on_as_if_it_had_not_been_interrupted():
    plan = {"epochs": 12, "steps_per_epoch": 3, "half_size_share": 0.5, "time_budget_s": 70}
    seconds = {"half": 5.0, "full": 9.0}.get
    whole, sizes = _run(Pace(**plan), steps=3, seconds=seconds)
    first = Pace(**plan)
    for size in sizes[:4]:
        for _ in range(3):
            first.step()
        first.end_epoch(seconds(size))

    second = Pace(**plan)
    second.restore(json.loads(json.dumps(first.to_json())))
    progress, rest = _run(second, steps=3, seconds=seconds)

    assert sizes[:4] + rest == sizes
    assert progress == whole[12:]
    assert second.is_cut_short
