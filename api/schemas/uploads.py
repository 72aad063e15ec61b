"""Uploads that go from the client straight to object storage."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, StringConstraints

from api.schemas.base import Body, Sha256, shows
from api.uploading import Announced, Upload

#: More than this one S3 request cannot carry.
MAX_OBJECT_BYTES = 5 * 2**30

_SHA256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
_URI = f"s3://defectoscope/objects/sha256/9f/{_SHA256}"


class ObjectIn(Body):
    """A file that the client has."""

    model_config = shows({"sha256": _SHA256, "size_bytes": 183422, "content_type": "image/png"})

    sha256: Sha256
    size_bytes: Annotated[int, Field(ge=0, le=MAX_OBJECT_BYTES)]
    content_type: Annotated[str, StringConstraints(max_length=100, pattern=r"^[a-z0-9.+-]+/[a-z0-9.+-]+$")]

    def to_announced(self) -> Announced:
        """Return the file as the use case wants it."""
        return Announced(sha256=self.sha256, size_bytes=self.size_bytes, content_type=self.content_type)


class UploadsIn(Body):
    """Files to be uploaded."""

    model_config = shows({"objects": [ObjectIn.example()]})

    objects: list[ObjectIn] = Field(min_length=1, max_length=1000)


class UploadRequestOut(Body):
    """Send the bytes with PUT to `url` with exactly these headers."""

    model_config = shows(
        {
            "url": "http://127.0.0.1:8333/defectoscope/objects/sha256/9f/9f86d0?X-Amz-Signature=0a1b",
            "headers": {"Content-Type": "image/png", "Content-Length": "183422", "If-None-Match": "*"},
        }
    )

    url: str
    headers: dict[str, str]


class UploadOut(Body):
    """Where a file will lie. `upload` is null when its bytes are stored already."""

    model_config = shows({"sha256": _SHA256, "uri": _URI, "upload": UploadRequestOut.example()})

    sha256: str
    uri: str
    upload: UploadRequestOut | None

    @classmethod
    def of(cls, upload: Upload) -> Self:
        """Return an upload as it goes over the wire."""
        request = upload.request
        return cls(
            sha256=upload.sha256,
            uri=upload.uri,
            upload=None if request is None else UploadRequestOut(url=request.url, headers=request.headers),
        )


class UploadsOut(Body):
    """One for each file, in the order asked."""

    model_config = shows({"items": [UploadOut.example()]})

    items: list[UploadOut]
