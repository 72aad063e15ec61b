"""Scores, always with the pixel counts they are derived from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Self

from pydantic import Field

from api.schemas.base import Body, Count, shows
from defectoscope.inspection.scores import QaSummary
from defectoscope.segmentation import PixelCounts, per_image_mean, pooled

Share = Annotated[float, Field(ge=0, le=1)]

_COUNTS = {"tp": 812, "fp": 40, "fn": 95, "tn": 64589}
_SCORES = {
    **_COUNTS,
    "iou_defect": 0.8574,
    "iou_background": 0.9979,
    "iou_mean": 0.9277,
    "dice": 0.9233,
    "precision": 0.9531,
    "recall": 0.8953,
}
_MEAN = {"iou_defect": 0.84, "iou_background": 0.997, "iou": 0.9185, "dice": 0.91}


class ScoresOut(Body):
    """Pixel counts and what follows from them. An empty mask against an empty label scores 1."""

    model_config = shows(_SCORES)

    tp: Count
    fp: Count
    fn: Count
    tn: Count
    iou_defect: Share
    iou_background: Share
    iou_mean: Share
    dice: Share
    precision: Share
    recall: Share

    @classmethod
    def of(cls, counts: PixelCounts) -> Self:
        """Return the scores of pixel counts."""
        return cls(
            tp=counts.tp,
            fp=counts.fp,
            fn=counts.fn,
            tn=counts.tn,
            iou_defect=counts.iou_defect,
            iou_background=counts.iou_background,
            iou_mean=counts.iou_mean,
            dice=counts.dice,
            precision=counts.precision,
            recall=counts.recall,
        )


class MeanScoresOut(Body):
    """Means over images, so that every image weighs the same."""

    model_config = shows(_MEAN)

    iou_defect: Share
    iou_background: Share
    iou: Share
    dice: Share


class ValidationOut(Body):
    """Scores of a model version on the validation images of the dataset revision it was trained on."""

    model_config = shows({"images": 40, "pooled": _SCORES, "mean": _MEAN})

    images: int
    pooled: ScoresOut
    mean: MeanScoresOut

    @classmethod
    def of(cls, counts: Sequence[PixelCounts]) -> Self | None:
        """Return the scores over images, or None where there are none."""
        iou_defect = per_image_mean(counts, lambda image: image.iou_defect)
        iou_background = per_image_mean(counts, lambda image: image.iou_background)
        dice = per_image_mean(counts, lambda image: image.dice)
        if iou_defect is None or iou_background is None or dice is None:
            return None
        return cls(
            images=len(counts),
            pooled=ScoresOut.of(pooled(counts)),
            mean=MeanScoresOut(
                iou_defect=iou_defect,
                iou_background=iou_background,
                iou=(iou_defect + iou_background) / 2,
                dice=dice,
            ),
        )


class QaOut(Body):
    """Scores of a job over its labelled images; it passes when the pooled defect IoU reaches `min_iou`."""

    model_config = shows({"images": 40, "min_iou": 0.5, "passed": True, "pooled": _SCORES, "mean": _MEAN})

    images: int
    min_iou: Share
    passed: bool
    pooled: ScoresOut
    mean: MeanScoresOut

    @classmethod
    def of(cls, summary: QaSummary) -> Self:
        """Return a summary as it goes over the wire."""
        return cls(
            images=summary.images,
            min_iou=summary.min_iou,
            passed=summary.passed,
            pooled=ScoresOut.of(summary.pooled),
            mean=MeanScoresOut(
                iou_defect=summary.mean_iou_defect,
                iou_background=summary.mean_iou_background,
                iou=summary.mean_iou,
                dice=summary.mean_dice,
            ),
        )
