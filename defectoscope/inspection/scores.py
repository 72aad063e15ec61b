"""QA of a job: its results against the labels that came with it, computed in SQL from stored pixel counts.

The formulas are those of `defectoscope.segmentation.metrics`; a test holds the two against each other.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import ColumnElement, Float, SQLColumnExpression, and_, case, cast, func, select
from sqlalchemy.orm import Session

from defectoscope.database import JobItem, QaScore
from defectoscope.segmentation import PixelCounts


@dataclass(frozen=True, slots=True, kw_only=True)
class QaSummary:
    """Scores of a job over its labelled images.

    ``pooled`` holds the counts summed over all images; the ``mean_`` figures are means over images, each in 0..1. An
    empty mask against an empty label scores 1.0.
    """

    images: int
    pooled: PixelCounts
    mean_iou_defect: float
    mean_iou_background: float
    mean_iou: float
    mean_dice: float
    min_iou: float

    @property
    def passed(self) -> bool:
        """Whether the pooled defect IoU reaches the job's threshold."""
        return self.pooled.iou_defect >= self.min_iou


def _ratio(numerator: SQLColumnExpression[int], denominator: SQLColumnExpression[int]) -> ColumnElement[float]:
    return case((denominator == 0, 1.0), else_=cast(numerator, Float) / cast(denominator, Float))


def summarise_qa(session: Session, job_id: int, *, min_iou: float) -> QaSummary | None:
    """Return the QA summary of a job, or None when no image of it has been scored."""
    iou_defect = _ratio(QaScore.tp, QaScore.tp + QaScore.fp + QaScore.fn)
    iou_background = _ratio(QaScore.tn, QaScore.tn + QaScore.fp + QaScore.fn)
    dice = _ratio(2 * QaScore.tp, 2 * QaScore.tp + QaScore.fp + QaScore.fn)
    row = session.execute(
        select(
            func.count(),
            func.sum(QaScore.tp),
            func.sum(QaScore.fp),
            func.sum(QaScore.fn),
            func.sum(QaScore.tn),
            func.avg(iou_defect),
            func.avg(iou_background),
            func.avg((iou_defect + iou_background) / 2),
            func.avg(dice),
        )
        .join(JobItem, and_(JobItem.result_id == QaScore.result_id, JobItem.label_id == QaScore.label_id))
        .where(JobItem.job_id == job_id)
    ).one()
    if row[0] == 0:
        return None
    return QaSummary(
        images=row[0],
        pooled=PixelCounts(int(row[1]), int(row[2]), int(row[3]), int(row[4])),
        mean_iou_defect=row[5],
        mean_iou_background=row[6],
        mean_iou=row[7],
        mean_dice=row[8],
        min_iou=min_iou,
    )
