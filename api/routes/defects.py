"""Defects across jobs, images and model versions."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query

from api.access import AccessScope, ScopedRoute, requires
from api.pages import AreaCursor, Limit, cut, last_area_px, last_id
from api.schemas.base import LARGEST_INTEGER, Page
from api.schemas.defects import DefectOut
from api.services import Parts
from defectoscope.errors.api import InvalidRequest
from defectoscope.inspection.defects import DefectFilter, DefectView, list_defects

router = APIRouter(prefix="/defects", tags=["defects"], route_class=ScopedRoute)

Id = Annotated[int | None, Query(ge=1, le=LARGEST_INTEGER)]


@router.get("", **requires(AccessScope.VIEWER))
def read_defects(
    services: Parts,
    *,
    job: Id = None,
    image: Id = None,
    result: Id = None,
    model_version: Id = None,
    min_area_px: Annotated[int | None, Query(ge=0, le=LARGEST_INTEGER)] = None,
    min_probability: Annotated[float | None, Query(ge=0, le=1)] = None,
    order: Literal["id", "area"] = "id",
    cursor: AreaCursor = None,
    limit: Limit = 100,
) -> Page[DefectOut]:
    """List defects, oldest first or largest first."""
    by_area = order == "area"
    if cursor is not None and by_area != ("-" in cursor):
        raise InvalidRequest("The cursor belongs to a list in another order.", cursor=cursor)
    wanted = DefectFilter(
        job_id=job,
        image_id=image,
        result_id=result,
        model_version=model_version,
        min_area_px=min_area_px,
        min_probability=min_probability,
    )
    with services.database.transaction() as session:
        rows = list_defects(
            session,
            wanted=wanted,
            after=last_id(cursor) or 0,
            after_area_px=last_area_px(cursor),
            limit=limit + 1,
            largest_first=by_area,
        )
    page, next_cursor = cut(rows, limit, _area_cursor if by_area else lambda view: view.defect.id)
    return Page(items=[DefectOut.of(view) for view in page], next_cursor=next_cursor)


def _area_cursor(view: DefectView) -> str:
    return f"{view.defect.area_px}-{view.defect.id}"
