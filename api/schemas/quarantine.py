"""Images in quarantine."""

from __future__ import annotations

from typing import Self

from pydantic import Field

from api.schemas.base import Body, Moment, shows
from defectoscope.database import QuarantinedImage


class QuarantinedImageOut(Body):
    """An image that took down its workers until it was given up. Jobs fail it as `image_quarantined`."""

    model_config = shows(
        {
            "id": 3,
            "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
            "source_uri": "s3://line-3/a.png",
            "name": "a.png",
            "job_id": 12,
            "created_at": "2026-11-20T21:00:04Z",
        }
    )

    id: int
    sha256: str | None = Field(description="of its content; null: no worker lived to read it")
    source_uri: str
    name: str = Field(description="what its job calls it")
    job_id: int | None = Field(description="the job that it was given up in")
    created_at: Moment

    @classmethod
    def of(cls, image: QuarantinedImage) -> Self:
        """Return an image in quarantine as it goes over the wire."""
        return cls(
            id=image.id,
            sha256=image.sha256,
            source_uri=image.source_uri,
            name=image.name,
            job_id=image.job_id,
            created_at=image.created_at,
        )
