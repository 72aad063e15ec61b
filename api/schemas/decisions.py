"""Decisions about model versions: what may be decided, the lines of the ledger, and comparisons they rest on."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Self

from pydantic import Field

from api.schemas.base import Body, Id, Moment, Text, shows
from defectoscope.database import LedgerAction
from defectoscope.registry.comparison import ComparedImage, Comparison
from defectoscope.registry.decision import Check
from defectoscope.registry.history import LedgerLine
from defectoscope.registry.ledger import ANY, ExpectedChampion

Share = Annotated[float, Field(ge=0, le=1)]

_LINE = {
    "id": 7,
    "action": "promoted",
    "model_version": 3,
    "previous_version": 2,
    "actor": "training run 6",
    "reason": "Promoted: the mean IoU is 0.012 higher.",
    "figures": {"promoted": True, "figures": {"images": 40}},
    "created_at": "2026-11-20T20:03:11Z",
}


class DecisionIn(Body):
    """Who decides, why, and against which champion."""

    model_config = shows({"actor": "ann", "reason": "Checked on last week's parts.", "expected_champion": 2})

    actor: Text | None = Field(
        None, description="for whom the holder of the token decides; the ledger names the token, and this beside it"
    )
    reason: Text
    expected_champion: Id | None = Field(
        None,
        description="version in service when this was decided, null for none: with another one by now the answer is "
        "champion_changed. Left out: whatever is in service",
    )

    def to_expected(self) -> ExpectedChampion:
        """Return the champion that the decision was made against."""
        return self.expected_champion if "expected_champion" in self.model_fields_set else ANY


class RollbackIn(DecisionIn):
    """Back to an earlier version."""

    model_config = shows({"actor": "ann", "reason": "False calls on line 3.", "expected_champion": 5, "to": None})

    to: Id | None = Field(None, description="version to go back to; left out: the one in service before")


class RetirementIn(Body):
    """A version that is never to be put into service again."""

    model_config = shows({"actor": "ann", "reason": "Trained on wrong labels.", "drop_weights": True})

    actor: Text | None = Field(
        None, description="for whom the holder of the token decides; the ledger names the token, and this beside it"
    )
    reason: Text
    drop_weights: bool = Field(default=False, description="delete its files; the record stays")


class LedgerLineOut(Body):
    """One decision; never changed once it is written."""

    model_config = shows(_LINE)

    id: int
    action: LedgerAction
    model_version: int
    previous_version: int | None = Field(description="in service until then, or against which it was refused")
    actor: str
    reason: str
    figures: dict[str, Any] = Field(description="what the decision rests on, such as the gate's checks")
    created_at: Moment

    @classmethod
    def of(cls, line: LedgerLine) -> Self:
        """Return a line as it goes over the wire."""
        return cls(
            id=line.id,
            action=line.action,
            model_version=line.number,
            previous_version=line.previous,
            actor=line.actor,
            reason=line.reason,
            figures=line.figures,
            created_at=line.created_at,
        )


class HistoryOut(Body):
    """The ledger up to a moment, newest line first, and what was in service then."""

    model_config = shows(
        {
            "as_of": "2026-11-23T02:00:00Z",
            "in_service": LedgerLineOut.example(),
            "items": [LedgerLineOut.example()],
            "next_cursor": None,
        }
    )

    as_of: Moment | None
    in_service: LedgerLineOut | None = Field(description="the line that put the champion of that moment into service")
    items: list[LedgerLineOut]
    next_cursor: str | None

    @classmethod
    def of(
        cls, as_of: datetime | None, in_service: LedgerLine | None, lines: Sequence[LedgerLine], next_cursor: str | None
    ) -> Self:
        """Return a page of the ledger as it goes over the wire."""
        return cls(
            as_of=as_of,
            in_service=None if in_service is None else LedgerLineOut.of(in_service),
            items=[LedgerLineOut.of(line) for line in lines],
            next_cursor=next_cursor,
        )


class CheckOut(Body):
    """One demand of the gate."""

    model_config = shows(
        {
            "name": "lower_bound",
            "holds": True,
            "figure": 0.003,
            "limit": -0.005,
            "sentence": "the data rule out a loss of more than 0.005",
        }
    )

    name: str
    holds: bool | None = Field(description="null: too few images to judge")
    figure: float | None
    limit: float
    sentence: str

    @classmethod
    def of(cls, check: Check) -> Self:
        """Return a check as it goes over the wire."""
        return cls(name=check.name, holds=check.holds, figure=check.figure, limit=check.limit, sentence=check.sentence)


class ComparedImageOut(Body):
    """A validation image under both versions, by the defect class's IoU."""

    model_config = shows({"image_id": 15, "name": "a.png", "a": 0.81, "b": 0.84, "difference": 0.03})

    image_id: int
    name: str
    a: Share
    b: Share
    difference: float = Field(ge=-1, le=1, description="b less a")

    @classmethod
    def of(cls, image: ComparedImage) -> Self:
        """Return an image as it goes over the wire."""
        return cls(
            image_id=image.image_id,
            name=image.name,
            a=image.a.iou_defect,
            b=image.b.iou_defect,
            difference=image.difference,
        )


class ComparisonOut(Body):
    """Version b against version a, on the validation images that both were scored on."""

    model_config = shows(
        {
            "a": 2,
            "b": 3,
            "dataset": "steel@4",
            "best_ever": None,
            "would_promote": True,
            "reason": "Promoted: the mean IoU is 0.012 higher.",
            "checks": [CheckOut.example()],
            "figures": {"images": 40, "groups": 31, "difference": {"mean": 0.012, "low": 0.003, "high": 0.021}},
            "images": [ComparedImageOut.example()],
        }
    )

    a: int
    b: int
    dataset: str
    best_ever: int | None = Field(description="third version that the gate looked at: the best one so far")
    would_promote: bool = Field(description="whether the gate would let b take the place of a")
    reason: str
    checks: list[CheckOut]
    figures: dict[str, Any] = Field(description="means, intervals, slices and rules of the gate")
    images: list[ComparedImageOut] = Field(description="those on which b lost most first")

    @classmethod
    def of(cls, comparison: Comparison) -> Self:
        """Return a comparison as it goes over the wire."""
        decision = comparison.decision
        return cls(
            a=comparison.a,
            b=comparison.b,
            dataset=comparison.dataset,
            best_ever=comparison.best_ever,
            would_promote=decision.promoted,
            reason=decision.reason,
            checks=[CheckOut.of(check) for check in decision.checks],
            figures=decision.figures,
            images=[ComparedImageOut.of(image) for image in comparison.images],
        )
