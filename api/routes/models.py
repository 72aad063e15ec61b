"""Model versions and how they did."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path

from api.access import AccessScope, requires
from api.pages import Cursor, Limit, cut, last_id
from api.schemas.base import LARGEST_INTEGER, Page
from api.schemas.models import ModelOut
from api.services import Parts
from defectoscope.registry.queries import list_models, view_model

router = APIRouter(prefix="/models", tags=["models"])


@router.get("", **requires(AccessScope.VIEWER))
def read_models(services: Parts, cursor: Cursor = None, limit: Limit = 50) -> Page[ModelOut]:
    """List model versions, newest first."""
    with services.database.transaction() as session:
        rows = list_models(session, before=last_id(cursor), limit=limit + 1)
    page, next_cursor = cut(rows, limit, lambda view: view.version.number)
    return Page(items=[ModelOut.of(view) for view in page], next_cursor=next_cursor)


@router.get("/{number}", **requires(AccessScope.VIEWER))
def read_model(services: Parts, number: Annotated[int, Path(ge=1, le=LARGEST_INTEGER, examples=[3])]) -> ModelOut:
    """Show one model version."""
    with services.database.transaction() as session:
        return ModelOut.of(view_model(session, number))
