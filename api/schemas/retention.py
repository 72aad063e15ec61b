"""Rules of retention and holds on the wire."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Self

from pydantic import Field

from api.schemas.base import Body, Count, Id, Moment, Text, shows
from defectoscope.database import Hold, RetainedWhat, RetentionRule
from defectoscope.objects.retention import MAX_DAYS

_RULE = {
    "id": 2,
    "what": "masks",
    "older_than_days": 90,
    "keep_defective": True,
    "job_id": None,
    "actor": "ann",
    "created_at": "2026-11-24T03:12:00Z",
}
_HOLD = {
    "id": 5,
    "job_id": 12,
    "image_id": None,
    "reason": "claim 2026-117",
    "actor": "line-3 for ann",
    "created_at": "2026-11-24T03:12:00Z",
}

Actor = Annotated[
    Text | None,
    Field(description="for whom the holder of the token decides; the token is named, and this beside it"),
]


class RetentionRuleIn(Body):
    """What is to be given up when it is old."""

    model_config = shows({name: _RULE[name] for name in ("what", "older_than_days", "keep_defective", "job_id")})

    what: RetainedWhat = Field(description="masks with overlays, or originals")
    older_than_days: Annotated[int, Field(ge=1, le=MAX_DAYS)] = Field(
        description="since it was made, and since the last job that used it"
    )
    keep_defective: bool = Field(True, description="spare results with defects, and the images that have one")
    job_id: Id | None = Field(None, description="only what this job used and no other")
    actor: Actor = None


class RetentionRuleOut(Body):
    """A rule. It is followed once a day, and when somebody asks for it."""

    model_config = shows(_RULE)

    id: int
    what: RetainedWhat
    older_than_days: int
    keep_defective: bool
    job_id: int | None
    actor: str
    created_at: Moment

    @classmethod
    def of(cls, rule: RetentionRule) -> Self:
        """Return a rule as it goes over the wire."""
        return cls(**{name: getattr(rule, name) for name in cls.model_fields})


class RuleCountOut(Body):
    """How many results or images fall under a rule. One may fall under several."""

    model_config = shows({"rule_id": 2, "rows": 1840})

    rule_id: int
    rows: Count

    @classmethod
    def list_of(cls, counts: Mapping[int, int]) -> list[Self]:
        """Return the counts of rules as they go over the wire."""
        return [cls(rule_id=rule_id, rows=rows) for rule_id, rows in counts.items()]


class DueOut(Body):
    """What the rules would give up now."""

    model_config = shows({"items": [RuleCountOut.example()]})

    items: list[RuleCountOut]


class AppliedOut(Body):
    """What the rules have given up."""

    model_config = shows({"items": [RuleCountOut.example()], "is_done": True})

    items: list[RuleCountOut]
    is_done: bool = Field(description="false: the time of one request was over; ask again to go on")


class HoldIn(Body):
    """A hold to be put on one job or on one image."""

    model_config = shows({"job_id": 12, "reason": "claim 2026-117"})

    job_id: Id | None = None
    image_id: Id | None = None
    reason: Text = Field(description="for whoever wants to remove it")
    actor: Actor = None


class HoldOut(Body):
    """A job or an image of which nothing is given up, whatever the rules say."""

    model_config = shows(_HOLD)

    id: int
    job_id: int | None
    image_id: int | None
    reason: str
    actor: str
    created_at: Moment

    @classmethod
    def of(cls, hold: Hold) -> Self:
        """Return a hold as it goes over the wire."""
        return cls(**{name: getattr(hold, name) for name in cls.model_fields})
