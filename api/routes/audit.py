"""The audit log: who asked for which change, and what came of it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from api.access import AccessScope, ScopedRoute, requires
from api.pages import Cursor, Limit, cut, last_id
from api.schemas.audit import AuditEntryOut
from api.schemas.base import LARGEST_INTEGER, Page
from api.services import Parts
from defectoscope.access.audit import list_entries

router = APIRouter(prefix="/audit", tags=["access"], route_class=ScopedRoute)

TokenAsked = Annotated[int | None, Query(ge=1, le=LARGEST_INTEGER, description="only of this token", examples=[3])]


@router.get("", **requires(AccessScope.ADMIN))
def read_audit_log(
    services: Parts, token: TokenAsked = None, cursor: Cursor = None, limit: Limit = 50
) -> Page[AuditEntryOut]:
    """List lines of the audit log, newest first."""
    with services.database.transaction() as session:
        rows = list_entries(session, before=last_id(cursor), limit=limit + 1, token_id=token)
    page, next_cursor = cut(rows, limit, lambda row: row.id)
    return Page(items=[AuditEntryOut.of(row) for row in page], next_cursor=next_cursor)
