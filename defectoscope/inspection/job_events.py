"""The event that a job has ended, written in the transaction that ends it."""

from __future__ import annotations

from sqlalchemy.orm import Session

from defectoscope.database import ItemState, Job, JobState, Severity
from defectoscope.events import record_event
from defectoscope.inspection.totals import count_items

_SEVERITY = {JobState.FAILED: Severity.ERROR, JobState.PARTIAL: Severity.WARNING}
_ENDED = {
    JobState.SUCCEEDED: "succeeded",
    JobState.PARTIAL: "ended in part",
    JobState.FAILED: "failed",
    JobState.CANCELLED: "was cancelled",
}


def tell_of_end(session: Session, job: Job) -> None:
    """Write the event of a job that is final now. A retried job ends again, and is told of again.

    Args:
        session: of the transaction that ends the job; its row is locked.
        job: with its final state and totals.
    """
    counts = count_items(job)
    succeeded, failed = counts[ItemState.SUCCEEDED], counts[ItemState.FAILED]
    record_event(
        session,
        kind="job.finished",
        subject=f"job:{job.id}",
        severity=_SEVERITY.get(job.state, Severity.INFO),
        message=(
            f"Job {job.id} {_ENDED[job.state]}: {succeeded} of {sum(counts.values())} images inspected, "
            f"{job.defective_images} defective, {failed} failed."
        ),
        job=job.id,
        name=job.name,
        state=job.state.value,
        images={state.value: count for state, count in counts.items()},
        defective_images=job.defective_images,
        defects=job.defects,
        error_code=job.error_code,
    )
