"""Holds: jobs and images of which nothing is deleted, whatever the rules of retention say."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path

from api.access import AccessScope, Caller, ScopedRoute, actor_of, requires
from api.pages import Cursor, Limit, cut, last_id
from api.schemas.base import LARGEST_INTEGER, Page
from api.schemas.retention import HoldIn, HoldOut
from api.services import Parts
from defectoscope.objects.retention import add_hold, list_holds, remove_hold

router = APIRouter(prefix="/holds", tags=["retention"], route_class=ScopedRoute)

HoldId = Annotated[int, Path(ge=1, le=LARGEST_INTEGER, examples=[5])]


@router.post("", status_code=201, **requires(AccessScope.OPERATOR))
def create(services: Parts, caller: Caller, wanted: HoldIn) -> HoldOut:
    """Put a hold on a job or on an image. What was deleted before does not come back."""
    with services.database.transaction() as session:
        hold = add_hold(
            session,
            reason=wanted.reason,
            actor=actor_of(caller, wanted.actor),
            job_id=wanted.job_id,
            image_id=wanted.image_id,
        )
        return HoldOut.of(hold)


@router.get("", **requires(AccessScope.VIEWER))
def read_holds(services: Parts, cursor: Cursor = None, limit: Limit = 50) -> Page[HoldOut]:
    """List holds, newest first."""
    with services.database.transaction() as session:
        rows = list_holds(session, before=last_id(cursor), limit=limit + 1)
    page, next_cursor = cut(rows, limit, lambda hold: hold.id)
    return Page(items=[HoldOut.of(hold) for hold in page], next_cursor=next_cursor)


# Whoever removes a hold has something deleted, which takes more than to keep it.
@router.delete("/{hold_id}", **requires(AccessScope.ADMIN))
def delete(services: Parts, caller: Caller, hold_id: HoldId) -> HoldOut:
    """Remove a hold; the rules hold again for what it spared. What it was is the answer."""
    with services.database.transaction() as session:
        return HoldOut.of(remove_hold(session, hold_id, actor=caller.name))
