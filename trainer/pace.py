"""How fast a training goes and how far it has come: learning rate, size of images and time budget follow one plan.

A budget that ends a one-cycle schedule in its middle would leave the network at a high learning rate, and one that ends
the training at half size would leave it at the wrong scale. So the number of epochs to expect is estimated anew after
each epoch, and both run over the epochs that will really come.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

#: Time of an epoch at half size in that of one at full size, measured with the quick recipe on two CPU cores: a quarter
#: of the pixels in training, all of them in validation.
_HALF_SIZE_COST = 0.45
#: Share of a one-cycle schedule in which the rate climbs, and the parts of its peak where it starts and ends
#: (Smith and Topin 2018, as torch's OneCycleLR has them).
_CLIMB_SHARE = 0.3
_START_PART = 1 / 25
_END_PART = 1 / 250_000


class Pace:
    """Counts steps and epochs, expects the end."""

    def __init__(
        self, *, epochs: int, steps_per_epoch: int, half_size_share: float = 0, time_budget_s: float | None = None
    ) -> None:
        """Plan the whole recipe.

        Args:
            epochs: at most.
            steps_per_epoch: at least 1.
            half_size_share: share of the epochs, the first ones, at half size.
            time_budget_s: no epoch is expected that would end later; None for no limit. The first always runs.
        """
        self._epochs = epochs
        self._steps_per_epoch = steps_per_epoch
        self._half_size_share = half_size_share
        self._time_budget_s = time_budget_s
        self._steps_done = 0
        self._epochs_done = 0
        self._elapsed_s = 0.0
        self._cost_done = 0.0
        self.epochs_expected = epochs

    @property
    def is_over(self) -> bool:
        """Whether no further epoch is expected."""
        return self._epochs_done >= self.epochs_expected

    @property
    def is_cut_short(self) -> bool:
        """Whether the time budget leaves out epochs of the recipe."""
        return self.epochs_expected < self._epochs

    @property
    def is_half_size(self) -> bool:
        """Whether the present epoch is trained at half size."""
        return self._epochs_done < self._half_size_epochs(self.epochs_expected)

    def to_json(self) -> dict[str, float]:
        """Return how far it has come, as JSON-ready values; `restore` reads them back."""
        return {
            "steps_done": self._steps_done,
            "epochs_done": self._epochs_done,
            "elapsed_s": self._elapsed_s,
            "cost_done": self._cost_done,
            "epochs_expected": self.epochs_expected,
        }

    def restore(self, values: Mapping[str, float]) -> None:
        """Go on from where another pace of the same plan had come.

        Raises:
            KeyError: a value is missing.
        """
        self._steps_done = int(values["steps_done"])
        self._epochs_done = int(values["epochs_done"])
        self._elapsed_s = float(values["elapsed_s"])
        self._cost_done = float(values["cost_done"])
        self.epochs_expected = int(values["epochs_expected"])

    @property
    def elapsed_s(self) -> float:
        """Time of all epochs so far."""
        return self._elapsed_s

    def step(self) -> float:
        """Count a step and return where it lies in the training, from 0 (first) to 1 (last)."""
        last = max(1, self.epochs_expected * self._steps_per_epoch - 1)
        progress = min(1.0, self._steps_done / last)
        self._steps_done += 1
        return progress

    def end_epoch(self, seconds: float) -> None:
        """Count an epoch that took so long, and expect the others to go as fast as all so far."""
        self._cost_done += _HALF_SIZE_COST if self.is_half_size else 1
        self._epochs_done += 1
        self._elapsed_s += seconds
        # The mean, because one epoch that another process held up would end a training for nothing.
        full_size_s = self._elapsed_s / self._cost_done
        if self._time_budget_s is not None:
            left_s = self._time_budget_s - self._elapsed_s
            expected = self._epochs_done
            while expected < self._epochs and self._cost(expected + 1) * full_size_s <= left_s:
                expected += 1
            self.epochs_expected = expected

    def _cost(self, epochs: int) -> float:
        """Return the cost of the epochs still to come when there are so many in all, in epochs at full size."""
        half = max(0, self._half_size_epochs(epochs) - self._epochs_done)
        return half * _HALF_SIZE_COST + (epochs - self._epochs_done - half)

    def _half_size_epochs(self, epochs: int) -> int:
        return int(self._half_size_share * epochs)


def learning_rate_part(schedule: Literal["constant", "one_cycle"], progress: float) -> float:
    """Return the part of the peak learning rate at a point of the training.

    Args:
        schedule: its shape; one_cycle climbs and falls along cosines.
        progress: 0 at the first step, 1 at the last.
    """
    if schedule == "constant":
        return 1.0
    if progress < _CLIMB_SHARE:
        return _cosine(_START_PART, 1.0, progress / _CLIMB_SHARE)
    return _cosine(1.0, _END_PART, (progress - _CLIMB_SHARE) / (1 - _CLIMB_SHARE))


def _cosine(start: float, end: float, part: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * part)) / 2
