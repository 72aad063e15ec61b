"""API tokens on the wire. The text of one is in the answer that makes it and nowhere else."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import Field

from api.schemas.base import Body, Moment, Text, shows
from defectoscope.access.store import NewToken, Principal
from defectoscope.database import AccessScope, ApiToken

#: Ten years; a token that lives longer is one for ever, and null says so.
LongestDays = Annotated[int, Field(ge=1, le=3650)]

_TOKEN = {
    "id": 3,
    "name": "line-3",
    "scope": "operator",
    "created_by": "ann",
    "created_at": "2026-11-20T20:01:00Z",
    "expires_at": "2027-11-20T20:01:00Z",
    "revoked_at": None,
    "last_used_at": "2026-11-23T02:00:00Z",
}


class TokenIn(Body):
    """A token to be made."""

    model_config = shows({"name": "line-3", "scope": "operator", "expires_in_days": 365})

    name: Annotated[Text, Field(max_length=100, description="of the person or the program that will hold it")]
    scope: AccessScope
    expires_in_days: LongestDays | None = Field(None, description="left out: it is valid until it is revoked")


class TokenOut(Body):
    """A token as the server knows it."""

    model_config = shows(_TOKEN)

    id: int
    name: str
    scope: AccessScope
    created_by: str
    created_at: Moment
    expires_at: Moment | None
    revoked_at: Moment | None
    last_used_at: Moment | None = Field(description="to the minute")

    @classmethod
    def of(cls, row: ApiToken) -> Self:
        """Return a token as it goes over the wire."""
        return cls(**_fields(row))


class NewTokenOut(TokenOut):
    """A token that was just made, with its text."""

    model_config = shows({**_TOKEN, "last_used_at": None, "token": "dsk_3_…"})

    token: str = Field(description="shown this once; send it as `Authorization: Bearer …`")

    @classmethod
    def of_new(cls, made: NewToken) -> Self:
        """Return a new token as it goes over the wire."""
        return cls(**_fields(made.row), token=made.text)


class CallerOut(Body):
    """Who calls."""

    model_config = shows({"token_id": 3, "name": "line-3", "scope": "operator"})

    token_id: int | None = Field(description="null where the API needs no token")
    name: str
    scope: AccessScope

    @classmethod
    def of(cls, caller: Principal) -> Self:
        """Return a caller as it goes over the wire."""
        return cls(token_id=caller.token_id, name=caller.name, scope=caller.scope)


def _fields(row: ApiToken) -> dict[str, Any]:
    return {name: getattr(row, name) for name in TokenOut.model_fields}
