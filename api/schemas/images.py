"""Images, known by their content."""

from __future__ import annotations

from typing import Self

from pydantic import Field

from api.schemas.base import Body, Moment, shows
from api.services import Services
from defectoscope.database import Image


class ImageOut(Body):
    """An image. Width and height are pixels after EXIF orientation."""

    model_config = shows(
        {
            "id": 77,
            "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
            "uri": "s3://defectoscope/objects/sha256/9f/9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
            "size_bytes": 183422,
            "width": 1920,
            "height": 1080,
            "format": "PNG",
            "source_mode": "RGB",
            "source_uri": "s3://line-3/a.png",
            "deleted_at": None,
            "created_at": "2026-11-20T21:00:04Z",
        }
    )

    id: int
    sha256: str
    uri: str = Field(description="where its bytes are kept")
    size_bytes: int
    width: int
    height: int
    format: str
    source_mode: str = Field(description="pixel mode before conversion to RGB")
    source_uri: str | None = Field(description="where these bytes were first found")
    deleted_at: Moment | None = Field(description="when the original bytes were deleted by retention")
    created_at: Moment

    @classmethod
    def of(cls, image: Image, services: Services) -> Self:
        """Return an image as it goes over the wire."""
        return cls(
            id=image.id,
            sha256=image.sha256,
            uri=services.uri(image.key),
            size_bytes=image.size_bytes,
            width=image.width,
            height=image.height,
            format=image.format,
            source_mode=image.source_mode,
            source_uri=image.source_uri,
            deleted_at=image.deleted_at,
            created_at=image.created_at,
        )
