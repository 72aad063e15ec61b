"""The one shape of every error answer."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from api.schemas.base import Body, shows

_EXAMPLE = {
    "code": "job_not_found",
    "message": "There is no job 7.",
    "details": {"job_id": 7},
    "request_id": "7f3c1d0e9b7d4c0ab8c7a0c3c7d0f1aa",
}


class ErrorDetail(Body):
    """What went wrong."""

    model_config = shows(_EXAMPLE)

    code: str = Field(description="stable; listed in docs/errors.md")
    message: str = Field(description="one sentence")
    details: dict[str, Any] = Field(description="facts for a program")
    request_id: str = Field(description="the log has everything about this request under it")


class ErrorOut(Body):
    """The body of every error."""

    model_config = shows({"error": _EXAMPLE})

    error: ErrorDetail
