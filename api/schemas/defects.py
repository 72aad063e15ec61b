"""Defects: connected regions of a result."""

from __future__ import annotations

from typing import Self

from pydantic import Field

from api.schemas.base import Body, shows
from defectoscope.inspection.defects import DefectView


class DefectOut(Body):
    """One defect, measured in pixels of the image at its own resolution. The far corner of the box is outside it."""

    model_config = shows(
        {
            "id": 311,
            "result_id": 90,
            "image_id": 77,
            "image_name": "images/a.png",
            "image_sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
            "source_uri": "s3://line-3/a.png",
            "model_version": 3,
            "number": 1,
            "box_xyxy": [410, 120, 470, 133],
            "area_px": 612,
            "area_mm2": 1.53,
            "centroid_xy": [439.2, 126.4],
            "major_axis_px": 61.0,
            "minor_axis_px": 12.8,
            "orientation_deg": 3.5,
            "perimeter_px": 140.2,
            "max_probability": 0.99,
            "mean_probability": 0.87,
            "touches_border": False,
        }
    )

    id: int
    result_id: int
    image_id: int
    image_name: str | None = Field(description="name it was submitted under: in the job asked for, or in any")
    image_sha256: str
    source_uri: str | None
    model_version: int
    number: int = Field(description="1 is the largest of its result")
    box_xyxy: tuple[int, int, int, int]
    area_px: int
    area_mm2: float | None
    centroid_xy: tuple[float, float]
    major_axis_px: float
    minor_axis_px: float
    orientation_deg: float
    perimeter_px: float
    max_probability: float
    mean_probability: float
    touches_border: bool

    @classmethod
    def of(cls, view: DefectView) -> Self:
        """Return a defect as it goes over the wire."""
        defect = view.defect
        return cls(
            id=defect.id,
            result_id=defect.result_id,
            image_id=view.result.image_id,
            image_name=view.name,
            image_sha256=view.image_sha256,
            source_uri=view.source_uri,
            model_version=view.model_version,
            number=defect.number,
            box_xyxy=(defect.x_min, defect.y_min, defect.x_max, defect.y_max),
            area_px=defect.area_px,
            area_mm2=defect.area_mm2,
            centroid_xy=(defect.centroid_x, defect.centroid_y),
            major_axis_px=defect.major_axis_px,
            minor_axis_px=defect.minor_axis_px,
            orientation_deg=defect.orientation_deg,
            perimeter_px=defect.perimeter_px,
            max_probability=defect.max_probability,
            mean_probability=defect.mean_probability,
            touches_border=defect.touches_border,
        )
