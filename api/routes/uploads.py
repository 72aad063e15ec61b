"""Uploads that go straight to object storage."""

from __future__ import annotations

from fastapi import APIRouter

from api.access import AccessScope, ScopedRoute, requires
from api.schemas.uploads import UploadOut, UploadsIn, UploadsOut
from api.services import Parts
from api.uploading import sign_uploads

router = APIRouter(prefix="/uploads", tags=["uploads"], route_class=ScopedRoute)


@router.post("", **requires(AccessScope.OPERATOR))
def sign(services: Parts, wanted: UploadsIn) -> UploadsOut:
    """Sign a PUT for each file that is not stored yet. A 412 on the PUT means that it is stored by now."""
    uploads = sign_uploads(services, [file.to_announced() for file in wanted.objects])
    return UploadsOut(items=[UploadOut.of(upload) for upload in uploads])
