"""Results, their masks and their overlays."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response

from api.access import AccessScope, ScopedRoute, requires
from api.downloads import attach, check_kept
from api.pages import Cursor, Limit, cut, last_id
from api.schemas.base import LARGEST_INTEGER, Page
from api.schemas.results import ResultOut
from api.services import Parts
from defectoscope.database import Verdict
from defectoscope.errors.storage import ObjectNotFound
from defectoscope.inspection.queries import list_results, view_result

router = APIRouter(prefix="/results", tags=["results"], route_class=ScopedRoute)

ResultId = Annotated[int, Path(ge=1, le=LARGEST_INTEGER, examples=[90])]
Id = Annotated[int | None, Query(ge=1, le=LARGEST_INTEGER)]


@router.get("", **requires(AccessScope.VIEWER))
def read_results(
    services: Parts,
    *,
    job: Id = None,
    image: Id = None,
    verdict: Verdict | None = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[ResultOut]:
    """List results in the order they were made."""
    with services.database.transaction() as session:
        rows = list_results(
            session, after=last_id(cursor) or 0, limit=limit + 1, job_id=job, image_id=image, verdict=verdict
        )
    page, next_cursor = cut(rows, limit, lambda view: view.result.id)
    return Page(items=[ResultOut.of(view, services) for view in page], next_cursor=next_cursor)


@router.get("/{result_id}", **requires(AccessScope.VIEWER))
def read_result(services: Parts, result_id: ResultId) -> ResultOut:
    """Show one result."""
    with services.database.transaction() as session:
        return ResultOut.of(view_result(session, result_id), services)


@router.get(
    "/{result_id}/mask",
    response_class=Response,
    responses={200: {"content": {"image/png": {}}, "description": "1-bit PNG of the image's size; white is defect."}},
    **requires(AccessScope.VIEWER),
)
def read_mask(services: Parts, result_id: ResultId) -> Response:
    """Send the mask."""
    with services.database.transaction() as session:
        result = view_result(session, result_id).result
    check_kept(result.deleted_at, f"The mask of result {result_id}")
    return attach(services, result.mask_key, media_type="image/png", file_name=f"mask-{result_id}.png")


@router.get(
    "/{result_id}/overlay",
    response_class=Response,
    responses={200: {"content": {"image/jpeg": {}}, "description": "The image with its defects drawn in."}},
    **requires(AccessScope.VIEWER),
)
def read_overlay(services: Parts, result_id: ResultId) -> Response:
    """Send the overlay."""
    with services.database.transaction() as session:
        result = view_result(session, result_id).result
    if result.overlay_key is None:
        raise ObjectNotFound(f"Result {result_id} has no overlay.", result_id=result_id)
    check_kept(result.deleted_at, f"The overlay of result {result_id}")
    return attach(services, result.overlay_key, media_type="image/jpeg", file_name=f"overlay-{result_id}.jpg")
