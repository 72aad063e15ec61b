"""The audit log on the wire."""

from __future__ import annotations

from typing import Self

from pydantic import Field

from api.schemas.base import Body, Moment, shows
from defectoscope.database import AuditEntry


class AuditEntryOut(Body):
    """Something that somebody asked to be changed."""

    model_config = shows(
        {
            "id": 812,
            "created_at": "2026-11-23T02:00:00Z",
            "token_id": 3,
            "actor": "line-3",
            "action": "POST /v1/jobs/{job_id}/cancel",
            "subject": "jobs/12",
            "request_id": "7f3c1d0e9b7d4c0ab8c7a0c3c7d0f1aa",
            "address": "10.0.3.17",
            "status": 200,
            "error_code": None,
        }
    )

    id: int
    created_at: Moment
    token_id: int | None
    actor: str = Field(description="name of the token")
    action: str = Field(description="method and route")
    subject: str | None = Field(description="what it is about")
    request_id: str = Field(description="the log has everything about this request under it")
    address: str | None = Field(description="where the request came from")
    status: int | None = Field(description="HTTP status of the answer; null: the process ended before there was one")
    error_code: str | None

    @classmethod
    def of(cls, entry: AuditEntry) -> Self:
        """Return a line as it goes over the wire."""
        return cls(**{name: getattr(entry, name) for name in cls.model_fields})
