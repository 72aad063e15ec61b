"""API tokens: make, list, revoke, and see whose one is."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Path

from api.access import AccessScope, Caller, ScopedRoute, requires
from api.pages import Cursor, Limit, cut, last_id
from api.schemas.base import LARGEST_INTEGER, Page
from api.schemas.tokens import CallerOut, NewTokenOut, TokenIn, TokenOut
from api.services import Parts
from defectoscope.access.store import create_token, list_tokens, revoke_token

router = APIRouter(prefix="/tokens", tags=["access"], route_class=ScopedRoute)

TokenId = Annotated[int, Path(ge=1, le=LARGEST_INTEGER, examples=[3])]


@router.post("", status_code=201, **requires(AccessScope.ADMIN))
def create(services: Parts, caller: Caller, wanted: TokenIn) -> NewTokenOut:
    """Make a token; its text is in this answer and can never be asked for again."""
    expires_in = None if wanted.expires_in_days is None else timedelta(days=wanted.expires_in_days)
    with services.database.transaction() as session:
        made = create_token(
            session, name=wanted.name, scope=wanted.scope, created_by=caller.name, expires_in=expires_in
        )
        return NewTokenOut.of_new(made)


@router.get("", **requires(AccessScope.ADMIN))
def read_tokens(services: Parts, cursor: Cursor = None, limit: Limit = 50) -> Page[TokenOut]:
    """List tokens, newest first."""
    with services.database.transaction() as session:
        rows = list_tokens(session, before=last_id(cursor), limit=limit + 1)
    page, next_cursor = cut(rows, limit, lambda row: row.id)
    return Page(items=[TokenOut.of(row) for row in page], next_cursor=next_cursor)


@router.get("/self", **requires(AccessScope.VIEWER))
def read_caller(caller: Caller) -> CallerOut:
    """Say whose token this is and what it allows."""
    return CallerOut.of(caller)


@router.post("/{token_id}/revoke", **requires(AccessScope.ADMIN))
def revoke(services: Parts, token_id: TokenId) -> TokenOut:
    """End a token at once and for good."""
    with services.database.transaction() as session:
        return TokenOut.of(revoke_token(session, token_id))
