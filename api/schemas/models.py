"""Model versions, their files and their scores."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field

from api.schemas.base import Body, Moment, shows
from api.schemas.scores import ValidationOut
from defectoscope.database import ModelVariant
from defectoscope.registry.queries import ModelView


class VariantOut(Body):
    """One file of a model version."""

    model_config = shows(
        {
            "precision": "fp32",
            "size_bytes": 18012345,
            "sha256": "fcde2b2edba56bf408601fb721fe9b5c338d10ee429ea04fae5511b68fbf8fb9",
            "parity": {"max_difference": 0.003, "mask_iou": 1.0, "images": 16},
        }
    )

    precision: str
    size_bytes: int
    sha256: str
    parity: dict[str, Any] = Field(description="how far its masks are from those of the trained network")

    @classmethod
    def of(cls, variant: ModelVariant) -> Self:
        """Return a file as it goes over the wire."""
        return cls(
            precision=variant.precision,
            size_bytes=variant.size_bytes,
            sha256=variant.sha256,
            parity=variant.parity,
        )


class ModelOut(Body):
    """A model version."""

    model_config = shows(
        {
            "number": 3,
            "is_champion": True,
            "architecture": "DeepLabV3Plus",
            "encoder": "mobilenet_v2",
            "input_size_wh": [256, 256],
            "threshold": 0.5,
            "min_area_px": 16,
            "dataset": "steel@1",
            "training_run_id": 6,
            "created_at": "2026-11-20T20:03:10Z",
            "validation": ValidationOut.example(),
            "variants": [VariantOut.example()],
        }
    )

    number: int
    is_champion: bool
    architecture: str
    encoder: str
    input_size_wh: tuple[int, int]
    threshold: float
    min_area_px: int
    dataset: str | None
    training_run_id: int | None
    created_at: Moment
    validation: ValidationOut | None
    variants: list[VariantOut]

    @classmethod
    def of(cls, view: ModelView) -> Self:
        """Return a model version as it goes over the wire."""
        version, contract = view.version, view.contract
        return cls(
            number=version.number,
            is_champion=view.is_champion,
            architecture=contract.architecture,
            encoder=contract.encoder,
            input_size_wh=contract.input_size_wh,
            threshold=contract.threshold,
            min_area_px=contract.min_area_px,
            dataset=view.dataset,
            training_run_id=version.training_run_id,
            created_at=version.created_at,
            validation=ValidationOut.of(view.validation),
            variants=[VariantOut.of(variant) for variant in view.variants],
        )
