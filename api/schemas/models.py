"""Model versions, their files and their scores."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field

from api.schemas.base import Body, Moment, shows
from api.schemas.decisions import LedgerLineOut
from api.schemas.scores import ValidationOut
from defectoscope.database import ModelOrigin, ModelVariant
from defectoscope.registry.queries import EvaluationView, ModelDetails, ModelView
from defectoscope.segmentation import ResizePolicy

_SHA256 = "fcde2b2edba56bf408601fb721fe9b5c338d10ee429ea04fae5511b68fbf8fb9"


class VariantOut(Body):
    """One file of a model version, or why there is none of this precision."""

    model_config = shows(
        {
            "precision": "fp32",
            "is_published": True,
            "reason": None,
            "size_bytes": 18012345,
            "sha256": _SHA256,
            "parity": {"max_difference": 0.003, "mask_iou": 1.0, "images": 16},
        }
    )

    precision: str
    is_published: bool = Field(description="whether the file can be had")
    reason: str | None = Field(description="why it was not published")
    size_bytes: int | None
    sha256: str | None = Field(description="stays when the file was dropped")
    parity: dict[str, Any] = Field(description="how far its masks are from those of the trained network")

    @classmethod
    def of(cls, variant: ModelVariant) -> Self:
        """Return a file as it goes over the wire."""
        return cls(
            precision=variant.precision,
            is_published=variant.key is not None,
            reason=variant.reason,
            size_bytes=variant.size_bytes,
            sha256=variant.sha256,
            parity=variant.parity,
        )


class EvaluationOut(Body):
    """How a version did on the validation images of a dataset revision."""

    model_config = shows(
        {
            "dataset": "steel@4",
            "precision": "fp32",
            "created_at": "2026-11-20T20:03:10Z",
            "validation": ValidationOut.example(),
        }
    )

    dataset: str
    precision: str
    created_at: Moment
    validation: ValidationOut | None

    @classmethod
    def of(cls, evaluation: EvaluationView) -> Self:
        """Return an evaluation as it goes over the wire."""
        return cls(
            dataset=evaluation.dataset,
            precision=evaluation.precision,
            created_at=evaluation.created_at,
            validation=ValidationOut.of(evaluation.counts),
        )


_MODEL = {
    "number": 3,
    "is_champion": True,
    "origin": "training",
    "architecture": "DeepLabV3Plus",
    "encoder": "mobilenet_v2",
    "input_size_wh": [256, 256],
    "threshold": 0.5,
    "min_area_px": 16,
    "resize_policy": "stretch",
    "dataset": "steel@1",
    "training_run_id": 6,
    "created_at": "2026-11-20T20:03:10Z",
    "retired_at": None,
    "weights_dropped_at": None,
    "validated_on": "steel@4",
    "validation": ValidationOut.example(),
    "variants": [VariantOut.example()],
}


class ModelOut(Body):
    """A model version."""

    model_config = shows(_MODEL)

    number: int
    is_champion: bool
    origin: ModelOrigin
    architecture: str
    encoder: str
    input_size_wh: tuple[int, int]
    threshold: float
    min_area_px: int
    resize_policy: ResizePolicy = Field(description="how an image of another size comes to the model's")
    dataset: str | None = Field(description="what it was trained on; null for one that was imported")
    training_run_id: int | None
    created_at: Moment
    retired_at: Moment | None = Field(description="since then it is never put into service again")
    weights_dropped_at: Moment | None = Field(description="since then its files are gone and only this record is left")
    validated_on: str | None = Field(description="dataset revision of the scores below: the latest it was scored on")
    validation: ValidationOut | None
    variants: list[VariantOut]

    @classmethod
    def of(cls, view: ModelView) -> Self:
        """Return a model version as it goes over the wire."""
        return cls(**_fields(view))


class ModelDetailsOut(ModelOut):
    """A model version with everything that is known about it."""

    model_config = shows(
        _MODEL
        | {
            "contract": {"defectoscope.architecture": "DeepLabV3Plus", "defectoscope.version": "3"},
            "operating_point": {"threshold": 0.5, "min_area_px": 16, "tuned": True, "escape_rate": {"mean": 0.02}},
            "evaluations": [EvaluationOut.example()],
            "ledger": [LedgerLineOut.example()],
        }
    )

    contract: dict[str, str] = Field(description="what its files say of themselves")
    operating_point: dict[str, Any] | None = Field(
        description="how threshold and minimum area were chosen, with both error rates and their intervals"
    )
    evaluations: list[EvaluationOut] = Field(description="oldest first")
    ledger: list[LedgerLineOut] = Field(description="every decision about it, oldest first")

    @classmethod
    def of_details(cls, details: ModelDetails) -> Self:
        """Return everything about a model version as it goes over the wire."""
        return cls(
            **_fields(details.view),
            contract=details.view.contract.to_metadata(),
            operating_point=details.view.version.operating_point,
            evaluations=[EvaluationOut.of(evaluation) for evaluation in details.evaluations],
            ledger=[LedgerLineOut.of(line) for line in details.ledger],
        )


class ModelFileOut(Body):
    """Where a file of a model version can be had for a while; check its hash."""

    model_config = shows(
        {
            "url": "http://127.0.0.1:8333/defectoscope/models/fcde2b.onnx?X-Amz-Signature=0a1b",
            "expires_in_s": 3600,
            "file_name": "model-3-fp32.onnx",
            "size_bytes": 18012345,
            "sha256": _SHA256,
        }
    )

    url: str
    expires_in_s: int
    file_name: str
    size_bytes: int
    sha256: str


def _fields(view: ModelView) -> dict[str, Any]:
    version, contract, validation = view.version, view.contract, view.validation
    return {
        "number": version.number,
        "is_champion": view.is_champion,
        "origin": version.origin,
        "architecture": contract.architecture,
        "encoder": contract.encoder,
        "input_size_wh": contract.input_size_wh,
        "threshold": contract.threshold,
        "min_area_px": contract.min_area_px,
        "resize_policy": contract.resize_policy,
        "dataset": view.dataset,
        "training_run_id": version.training_run_id,
        "created_at": version.created_at,
        "retired_at": version.retired_at,
        "weights_dropped_at": version.weights_dropped_at,
        "validated_on": None if validation is None else validation.dataset,
        "validation": None if validation is None else ValidationOut.of(validation.counts),
        "variants": [VariantOut.of(variant) for variant in view.variants],
    }
