"""QA of a job: its results against the labels that came with it, from the sums that completion keeps on the job.

The formulas are those of `defectoscope.segmentation.metrics`; a test holds the two against each other.
"""

from __future__ import annotations

from dataclasses import dataclass

from defectoscope.database import Job
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


def summarise_qa(job: Job, *, min_iou: float) -> QaSummary | None:
    """Return the QA summary of a job, or None when no image of it has been scored."""
    images = job.scored_images
    if images == 0:
        return None
    return QaSummary(
        images=images,
        pooled=PixelCounts(job.tp, job.fp, job.fn, job.tn),
        mean_iou_defect=float(job.iou_defect_sum / images),
        mean_iou_background=float(job.iou_background_sum / images),
        mean_iou=float((job.iou_defect_sum + job.iou_background_sum) / (2 * images)),
        mean_dice=float(job.dice_sum / images),
        min_iou=min_iou,
    )
