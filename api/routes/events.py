"""Events of the whole installation."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from api.access import AccessScope, ScopedRoute, requires
from api.pages import Cursor, Limit, cut, last_id
from api.schemas.base import Page
from api.schemas.events import EventOut
from api.services import Parts
from defectoscope.events import list_events

router = APIRouter(prefix="/events", tags=["events"], route_class=ScopedRoute)

Kind = Annotated[
    str | None,
    Query(
        pattern=r"^[a-z_]+(\.[a-z_]+)*$", max_length=64, description="only of this kind", examples=["model.promoted"]
    ),
]


@router.get("", **requires(AccessScope.VIEWER))
def read_events(services: Parts, kind: Kind = None, cursor: Cursor = None, limit: Limit = 50) -> Page[EventOut]:
    """List events, newest first."""
    with services.database.transaction() as session:
        rows = list_events(session, before=last_id(cursor), limit=limit + 1, kind=kind)
    page, next_cursor = cut(rows, limit, lambda event: event.id)
    return Page(items=[EventOut.of(event) for event in page], next_cursor=next_cursor)
