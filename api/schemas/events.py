"""Events: what happened that somebody may want to be told of."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field

from api.schemas.base import Body, Moment, shows
from defectoscope.database import Event, Severity


class EventOut(Body):
    """Something that happened, in one sentence."""

    model_config = shows(
        {
            "id": 41,
            "kind": "model.rolled_back",
            "severity": "warning",
            "subject": "model:4",
            "message": "Model version 4 is back in service in place of version 5.",
            "details": {"model_version": 4, "previous_version": 5, "actor": "ann", "reason": "false calls on line 3"},
            "created_at": "2026-11-23T03:12:00Z",
        }
    )

    id: int
    kind: str = Field(description="such as training.failed or model.promoted")
    severity: Severity
    subject: str = Field(description="what it is about, such as training_run:6 or model:3")
    message: str
    details: dict[str, Any]
    created_at: Moment

    @classmethod
    def of(cls, event: Event) -> Self:
        """Return an event as it goes over the wire."""
        return cls(
            id=event.id,
            kind=event.kind,
            severity=event.severity,
            subject=event.subject,
            message=event.message,
            details=event.details,
            created_at=event.created_at,
        )
