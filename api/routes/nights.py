"""Nights of the retraining schedule."""

from __future__ import annotations

from fastapi import APIRouter

from api.access import AccessScope, ScopedRoute, requires
from api.pages import Cursor, Limit, cut, last_id
from api.schemas.base import Page
from api.schemas.nights import NightOut
from api.services import Parts
from defectoscope.nights import list_nights

router = APIRouter(prefix="/nights", tags=["nights"], route_class=ScopedRoute)


@router.get("", **requires(AccessScope.VIEWER))
def read_nights(services: Parts, cursor: Cursor = None, limit: Limit = 50) -> Page[NightOut]:
    """List nights, newest first."""
    with services.database.transaction() as session:
        rows = list_nights(session, before=last_id(cursor), limit=limit + 1)
    page, next_cursor = cut(rows, limit, lambda night: night.id)
    return Page(items=[NightOut.of(night) for night in page], next_cursor=next_cursor)
