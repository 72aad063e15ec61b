"""Nights: what the schedule came to, one row for each."""

from __future__ import annotations

from datetime import date
from typing import Self

from pydantic import Field

from api.schemas.base import Body, Moment, shows
from defectoscope.database import Night, NightState


class NightOut(Body):
    """A night: a training run, or the reason why there is none."""

    model_config = shows(
        {
            "id": 9,
            "night": "2026-11-23",
            "state": "skipped",
            "reason": "3 labels of steel@4 are new; 20 are needed.",
            "new_labels": 3,
            "training_run_id": None,
            "created_at": "2026-11-24T02:00:00Z",
        }
    )

    id: int
    night: date = Field(description="date of its evening; a night lasts from noon to noon in the time zone set")
    state: NightState
    reason: str
    new_labels: int | None
    training_run_id: int | None
    created_at: Moment

    @classmethod
    def of(cls, night: Night) -> Self:
        """Return a night as it goes over the wire."""
        return cls(
            id=night.id,
            night=night.night,
            state=night.state,
            reason=night.reason,
            new_labels=night.new_labels,
            training_run_id=night.training_run_id,
            created_at=night.created_at,
        )
