"""Results: one image under one model version."""

from __future__ import annotations

from typing import Self

from pydantic import Field

from api.schemas.base import Body, Moment, shows
from api.schemas.images import ImageOut
from api.services import Services
from defectoscope.database import Verdict
from defectoscope.inspection.queries import ResultView


class ResultOut(Body):
    """What one model version found in one image."""

    model_config = shows(
        {
            "id": 90,
            "image": ImageOut.example(),
            "image_name": "images/a.png",
            "model_version": 3,
            "verdict": "defective",
            "defect_px": 907,
            "defect_count": 2,
            "defect_fraction": 0.000437,
            "threshold": 0.5,
            "min_area_px": 16,
            "mm_per_px": 0.05,
            "variant": "fp32",
            "provider": "CUDAExecutionProvider",
            "runtime_version": "1.31.0",
            "latency_ms": 1.9,
            "resize_policy": "tile",
            "tile_count": 24,
            "model_scale": 1.0,
            "has_overlay": True,
            "mask_uri": "s3://defectoscope/masks/90.png",
            "overlay_uri": "s3://defectoscope/overlays/90.jpg",
            "deleted_at": None,
            "created_at": "2026-11-20T21:00:05Z",
        }
    )

    id: int
    image: ImageOut
    image_name: str | None = Field(description="name it was submitted under: in the job asked for, or in any")
    model_version: int
    verdict: Verdict
    defect_px: int
    defect_count: int
    defect_fraction: float = Field(description="share of the image's pixels that are defect")
    threshold: float
    min_area_px: int
    mm_per_px: float | None
    variant: str
    provider: str = Field(description="execution provider that really ran")
    runtime_version: str
    latency_ms: float
    resize_policy: str = Field(description="how the image came to the model's size: stretch, letterbox or tile")
    tile_count: int = Field(description="model inputs that the image became; 1 unless it was cut into tiles")
    model_scale: float | None = Field(
        description="pixels of the model's input for each pixel of the image, along the axis that lost more"
    )
    has_overlay: bool
    mask_uri: str
    overlay_uri: str | None
    deleted_at: Moment | None = Field(description="when mask and overlay were deleted by retention")
    created_at: Moment

    @classmethod
    def of(cls, view: ResultView, services: Services) -> Self:
        """Return a result as it goes over the wire."""
        result, image = view.result, view.image
        return cls(
            id=result.id,
            image=ImageOut.of(image, services),
            image_name=view.name,
            model_version=view.model_version,
            verdict=result.verdict,
            defect_px=result.defect_px,
            defect_count=result.defect_count,
            defect_fraction=result.defect_px / (image.width * image.height),
            threshold=result.threshold,
            min_area_px=result.min_area_px,
            mm_per_px=result.mm_per_px,
            variant=result.variant,
            provider=result.provider,
            runtime_version=result.runtime_version,
            latency_ms=result.latency_ms,
            resize_policy=result.resize_policy,
            tile_count=result.tile_count,
            model_scale=result.model_scale,
            has_overlay=result.overlay_key is not None,
            mask_uri=services.uri(result.mask_key),
            overlay_uri=None if result.overlay_key is None else services.uri(result.overlay_key),
            deleted_at=result.deleted_at,
            created_at=result.created_at,
        )
