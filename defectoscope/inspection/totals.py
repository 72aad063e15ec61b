"""The totals of a job, kept with its items: whoever changes items changes the totals in the same transaction.

A job of a million images is then shown without counting a million rows. Completion takes the job's row lock anyway,
to find out whether this was the last chunk, so that the totals bring no wait that was not there.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import text, update
from sqlalchemy.orm import Session

from defectoscope.database import ItemState, Job

# The job must be locked before this statement begins: it has to see the items of every chunk that completed before.
# A picture submitted under two names is two images with one result: its defects exist, and are counted, once.
# Decimal division gives the same digits wherever it is done: sums that drift would disagree with a recount.
_ADD_COMPLETED = text("""
    WITH ended AS MATERIALIZED (
        SELECT state, verdict, result_id, label_id FROM job_items WHERE id = ANY(CAST(:item_ids AS bigint[]))
    ), counted AS (
        SELECT count(*) AS images, count(*) FILTER (WHERE state = 'succeeded') AS succeeded,
            count(*) FILTER (WHERE verdict = 'defective') AS defective
        FROM ended
    ), found AS (
        SELECT coalesce(sum(defect_count), 0) AS defects FROM results
        WHERE id IN (SELECT result_id FROM ended WHERE verdict = 'defective') AND NOT EXISTS (
            SELECT FROM job_items AS other
            WHERE other.job_id = :job_id AND other.verdict = 'defective' AND other.result_id = results.id
                AND other.id <> ALL(CAST(:item_ids AS bigint[]))
        )
    ), scored AS (
        SELECT count(*) AS images, coalesce(sum(tp), 0) AS tp, coalesce(sum(fp), 0) AS fp, coalesce(sum(fn), 0) AS fn,
            coalesce(sum(tn), 0) AS tn,
            coalesce(sum(coalesce(tp::numeric / nullif(tp + fp + fn, 0), 1)), 0) AS iou_defect,
            coalesce(sum(coalesce(tn::numeric / nullif(tn + fp + fn, 0), 1)), 0) AS iou_background,
            coalesce(sum(coalesce(2 * tp::numeric / nullif(2 * tp + fp + fn, 0), 1)), 0) AS dice
        FROM ended JOIN qa_scores USING (result_id, label_id)
    )
    UPDATE jobs SET
        pending_images = pending_images - counted.images,
        succeeded_images = succeeded_images + counted.succeeded,
        failed_images = failed_images + counted.images - counted.succeeded,
        label_errors = label_errors + :label_errors,
        defective_images = defective_images + counted.defective,
        defects = jobs.defects + found.defects,
        scored_images = scored_images + scored.images,
        tp = jobs.tp + scored.tp, fp = jobs.fp + scored.fp, fn = jobs.fn + scored.fn, tn = jobs.tn + scored.tn,
        iou_defect_sum = iou_defect_sum + scored.iou_defect,
        iou_background_sum = iou_background_sum + scored.iou_background,
        dice_sum = dice_sum + scored.dice
    FROM counted, found, scored
    WHERE jobs.id = :job_id
""")


def add_completed(session: Session, job_id: int, *, item_ids: Sequence[int], label_errors: int) -> None:
    """Count items that were pending and have ended just now, with their results and scores.

    Args:
        session: the transaction that ended them; it holds the job's row lock.
        job_id: their job.
        item_ids: the items.
        label_errors: how many of them have a label that was found unusable now and not before.
    """
    session.execute(_ADD_COMPLETED, {"job_id": job_id, "item_ids": list(item_ids), "label_errors": label_errors})


def change_counts(
    session: Session,
    job_id: int,
    *,
    pending: int = 0,
    failed: int = 0,
    cancelled: int = 0,
    label_errors: int = 0,
) -> None:
    """Add to the totals of a job; the row stays locked until the transaction ends."""
    changes = {
        Job.pending_images: pending,
        Job.failed_images: failed,
        Job.cancelled_images: cancelled,
        Job.label_errors: label_errors,
    }
    values = {column: column + change for column, change in changes.items() if change}
    if values:
        session.execute(update(Job).where(Job.id == job_id).values(values).execution_options(synchronize_session=False))


def count_items(job: Job) -> dict[ItemState, int]:
    """Return how many images of a job are in each state."""
    return {
        ItemState.PENDING: job.pending_images,
        ItemState.SUCCEEDED: job.succeeded_images,
        ItemState.FAILED: job.failed_images,
        ItemState.CANCELLED: job.cancelled_images,
    }
