"""Imports of foreign model files: asked for here, wrapped and checked by a trainer."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import Field

from api.schemas.base import Body, Moment, Problem, Sha256, Text, shows
from api.schemas.datasets import DatasetReference
from defectoscope.database import ImportState
from defectoscope.registry.imports import ImportView

Threshold = Annotated[float, Field(gt=0, le=1)]
AreaPx = Annotated[int, Field(ge=0, le=2**31)]
SidePx = Annotated[int, Field(ge=1, le=8192)]

_SHA256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
_OPTIONS = {"architecture": "DeepLabV3Plus", "encoder": "resnet101", "threshold": 0.5, "dataset": "steel"}


class ImportOptionsIn(Body):
    """Facts about the model that the file does not hold. What is left out is the trainer's choice."""

    model_config = shows(_OPTIONS)

    architecture: Text | None = None
    encoder: Text | None = None
    threshold: Threshold | None = None
    min_area_px: AreaPx | None = None
    input_size_wh: tuple[SidePx, SidePx] | None = Field(
        None, description="width and height that the model was trained on, where the file leaves them open"
    )
    dataset: DatasetReference | None = Field(None, description="dataset on whose validation images it is scored")


class ModelImportIn(Body):
    """A model file that was stored with `POST /v1/uploads` before."""

    model_config = shows(
        {"sha256": _SHA256, "file_name": "deeplabv3_plus_model.onnx", "options": _OPTIONS, "actor": "ann"}
    )

    sha256: Sha256
    file_name: Text
    options: ImportOptionsIn = ImportOptionsIn()
    actor: Text | None = Field(
        None, description="for whom the holder of the token asks; the import names the token, and this beside it"
    )


class ModelImportOut(Body):
    """An import, as far as it has come."""

    model_config = shows(
        {
            "id": 2,
            "state": "succeeded",
            "file_name": "deeplabv3_plus_model.onnx",
            "sha256": _SHA256,
            "options": _OPTIONS,
            "actor": "ann",
            "attempts": 1,
            "error": None,
            "model_version": 4,
            "created_at": "2026-11-20T20:01:00Z",
            "finished_at": "2026-11-20T20:01:40Z",
        }
    )

    id: int
    state: ImportState
    file_name: str
    sha256: str
    options: dict[str, Any]
    actor: str
    attempts: int
    error: Problem | None = Field(description="why the file was refused, or what went wrong")
    model_version: int | None
    created_at: Moment
    finished_at: Moment | None

    @classmethod
    def of(cls, view: ImportView) -> Self:
        """Return an import as it goes over the wire."""
        row = view.row
        return cls(
            id=row.id,
            state=row.state,
            file_name=row.file_name,
            sha256=row.sha256,
            options=row.options,
            actor=row.actor,
            attempts=row.attempts,
            error=Problem.of(row.error_code, row.error_message),
            model_version=view.model_version,
            created_at=row.created_at,
            finished_at=row.finished_at,
        )
