"""Labels: ground-truth masks brought in together with their images."""

from __future__ import annotations

from typing import Self

from pydantic import Field

from api.registration import LabelledPair, PairOutcome
from api.schemas.base import Body, Problem, Text, Uri, shows


class LabelIn(Body):
    """An image and its mask, by address."""

    model_config = shows(
        {
            "name": "a.png",
            "image_uri": "s3://line-3/images/a.png",
            "label_uri": "s3://line-3/labels/a.png",
            "part": "tile-55",
        }
    )

    name: Text
    image_uri: Uri
    label_uri: Uri
    part: Text | None = Field(
        None, description="the part or place it shows: images of one part are never on both sides of a split"
    )

    def to_pair(self) -> LabelledPair:
        """Return the pair as the use case wants it."""
        return LabelledPair(name=self.name, image_uri=self.image_uri, label_uri=self.label_uri, part=self.part)


class LabelsIn(Body):
    """Labels to be registered."""

    model_config = shows({"source": "dataset:steel", "entries": [LabelIn.example()]})

    source: Text = Field(description="where they come from")
    entries: list[LabelIn] = Field(min_length=1, max_length=100)


class LabelOut(Body):
    """What became of a pair: both ids, or an error."""

    model_config = shows({"name": "a.png", "image_id": 77, "label_id": 15, "error": None})

    name: str
    image_id: int | None
    label_id: int | None
    error: Problem | None

    @classmethod
    def of(cls, outcome: PairOutcome) -> Self:
        """Return an outcome as it goes over the wire."""
        error = outcome.error
        return cls(
            name=outcome.name,
            image_id=outcome.image_id,
            label_id=outcome.label_id,
            error=None if error is None else Problem(code=error.code, message=error.message),
        )


class LabelsOut(Body):
    """One for each pair, in the order sent."""

    model_config = shows({"items": [LabelOut.example()]})

    items: list[LabelOut]
