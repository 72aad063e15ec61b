"""The quarantine: images that took down their workers, and the way out for them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path

from api.access import AccessScope, ScopedRoute, requires
from api.pages import Cursor, Limit, cut, last_id
from api.schemas.base import LARGEST_INTEGER, Page
from api.schemas.quarantine import QuarantinedImageOut
from api.services import Parts
from defectoscope.inspection.quarantine import list_quarantined, release_image

router = APIRouter(prefix="/quarantine", tags=["images"], route_class=ScopedRoute)

QuarantinedId = Annotated[int, Path(ge=1, le=LARGEST_INTEGER, examples=[3])]


@router.get("", **requires(AccessScope.VIEWER))
def read_quarantine(services: Parts, cursor: Cursor = None, limit: Limit = 50) -> Page[QuarantinedImageOut]:
    """List images in quarantine, the latest first."""
    with services.database.transaction() as session:
        rows = list_quarantined(session, before=last_id(cursor), limit=limit + 1)
    page, next_cursor = cut(rows, limit, lambda image: image.id)
    return Page(items=[QuarantinedImageOut.of(image) for image in page], next_cursor=next_cursor)


@router.post("/{quarantined_id}/release", **requires(AccessScope.OPERATOR))
def release(services: Parts, quarantined_id: QuarantinedId) -> QuarantinedImageOut:
    """Let an image out of quarantine; a retry of its job, and every later job, hands it to workers again."""
    return QuarantinedImageOut.of(release_image(database=services.database, quarantined_id=quarantined_id))
