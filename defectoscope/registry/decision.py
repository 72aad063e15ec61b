"""What the gate answers: a verdict, one sentence for people, and every figure behind it for the ledger."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One demand on the challenger.

    Attributes:
        name: stable: "groups", "finds_defects", "floor", "lower_bound", "mean", "best_ever", or "slice:" and the name
            of a slice.
        holds: True or False; None where there are too few images to judge, which only a slice survives.
        figure: what was measured; None where there was nothing to measure.
        limit: what the figure must reach.
        sentence: figure and limit in words.
    """

    name: str
    holds: bool | None
    figure: float | None
    limit: float
    sentence: str

    @property
    def is_slice(self) -> bool:
        """Whether the check is about some of the images only."""
        return self.name.startswith("slice:")

    @property
    def blocks(self) -> bool:
        """Whether the check stands in the way of a promotion."""
        return self.holds is False or (self.holds is None and not self.is_slice)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The gate's answer.

    Attributes:
        promoted: whether the challenger may go into service.
        is_new_best: whether it is also the best version ever from now on: the first, or one that is promoted and of
            which the data show that it is better than the best so far. A version that is merely not worse does not
            become the best, so that the ratchet cannot be worn down by luck.
        reason: one sentence.
        checks: every demand, in the order in which they are looked at.
        figures: JSON-ready: means, pooled IoU, bounds, slices, counts and the rules.
    """

    promoted: bool
    is_new_best: bool
    reason: str
    checks: tuple[Check, ...]
    figures: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return the whole decision as JSON-ready values."""
        return {
            "promoted": self.promoted,
            "is_new_best": self.is_new_best,
            "reason": self.reason,
            "checks": [asdict(check) for check in self.checks],
            "figures": self.figures,
        }
