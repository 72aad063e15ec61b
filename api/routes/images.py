"""Images: upload one, look them up, get the bytes back."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, File, Path, Query, Response, UploadFile

from api.access import AccessScope, ScopedRoute, requires
from api.downloads import attach, check_kept
from api.pages import Cursor, Limit, cut, last_id
from api.registration import MEDIA_TYPES, register_image
from api.schemas.base import LARGEST_INTEGER, Page
from api.schemas.images import ImageOut
from api.services import Parts
from defectoscope.inspection.queries import list_images, view_image

router = APIRouter(prefix="/images", tags=["images"], route_class=ScopedRoute)

#: The one route with a limit of its own.
UPLOAD_PATH = "/v1/images"

ImageId = Annotated[int, Path(ge=1, le=LARGEST_INTEGER, examples=[77])]


@router.post(
    "",
    status_code=201,
    responses={200: {"model": ImageOut, "description": "These bytes were known."}},
    **requires(AccessScope.OPERATOR),
)
def upload_an_image(
    services: Parts,
    file: Annotated[UploadFile, File(description="PNG, JPEG, TIFF, BMP or WebP", examples=["a.png"])],
    response: Response,
) -> ImageOut:
    """Store an image and register it."""
    image, is_new = register_image(services, file.file)
    response.status_code = 201 if is_new else 200
    return ImageOut.of(image, services)


@router.get("", **requires(AccessScope.VIEWER))
def read_images(
    services: Parts,
    sha256: Annotated[str | None, Query(pattern=r"^[0-9a-f]{64}$")] = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[ImageOut]:
    """List images, newest first."""
    with services.database.transaction() as session:
        rows = list_images(session, before=last_id(cursor), limit=limit + 1, sha256=sha256)
    page, next_cursor = cut(rows, limit, lambda image: image.id)
    return Page(items=[ImageOut.of(image, services) for image in page], next_cursor=next_cursor)


@router.get("/{image_id}", **requires(AccessScope.VIEWER))
def read_image(services: Parts, image_id: ImageId) -> ImageOut:
    """Show one image."""
    with services.database.transaction() as session:
        return ImageOut.of(view_image(session, image_id), services)


@router.get(
    "/{image_id}/content",
    response_class=Response,
    responses={200: {"content": {"image/*": {}}, "description": "The original bytes."}},
    **requires(AccessScope.VIEWER),
)
def read_content(services: Parts, image_id: ImageId) -> Response:
    """Send the original bytes."""
    with services.database.transaction() as session:
        image = view_image(session, image_id)
    check_kept(image.deleted_at, f"The original of image {image_id}")
    name = f"image-{image_id}.{image.format.lower()}"
    return attach(services, image.key, media_type=MEDIA_TYPES[image.format], file_name=name)
