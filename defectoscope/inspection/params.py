"""What a job asks of its results, with every default resolved when the job is submitted."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Self

from defectoscope.segmentation import ResizePolicy


class Overlays(StrEnum):
    """For which results a picture with the defects drawn in is written."""

    NONE = "none"
    DEFECTIVE = "defective"
    ALL = "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobParams:
    """Parameters of a job.

    ``threshold`` is a probability in (0, 1]; ``min_area_px`` is in pixels of the image at its own resolution;
    ``mm_per_px`` is the length of a pixel's side, None where unknown; ``qa_min_iou`` is the pooled defect IoU at which
    a labelled job passes; ``resize_policy`` says how images come to the model's size, None for the model's own way.
    """

    threshold: float
    min_area_px: int
    overlays: Overlays
    mm_per_px: float | None
    qa_min_iou: float
    resize_policy: ResizePolicy | None = None

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary.

        The model's own resize policy is left out: what was hashed before jobs had one keeps its hash.
        """
        values = asdict(self)
        if self.resize_policy is None:
            del values["resize_policy"]
        return values

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """Return the parameters that `to_json` wrote."""
        return cls(**{**values, "overlays": Overlays(values["overlays"])})

    @property
    def result_sha256(self) -> str:
        """Hash of what changes a result. Two jobs that agree in it share their results."""
        relevant = {name: value for name, value in self.to_json().items() if name != "qa_min_iou"}
        return hashlib.sha256(json.dumps(relevant, sort_keys=True).encode()).hexdigest()
