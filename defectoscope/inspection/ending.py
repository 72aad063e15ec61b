"""How jobs end: with their last chunk, or before it, when they are cancelled, overdue or have too many failures.

Whoever ends a chunk asks here, in the same transaction, whether its job ends with it. No state is without a way on: a
job that stopped by itself can be retried.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import func, select, text, update
from sqlalchemy.orm import Session

from defectoscope.database import Chunk, ChunkState, ItemState, Job, JobItem, JobState
from defectoscope.errors import DefectoscopeError
from defectoscope.errors.jobs import DeadlineExceeded, FailureBudgetExceeded, JobNotFound
from defectoscope.inspection.job_events import tell_of_end
from defectoscope.inspection.totals import change_counts, count_items

#: While a chunk is in one of these, its job is owed something.
UNFINISHED_CHUNKS = (ChunkState.PENDING, ChunkState.RUNNING)
#: Chunks that one transaction ends unworked. A million images have more: the reconciler ends the others, as many at a
#: time.
STOPPED_AT_ONCE = 200
#: The share of failures is taken of no fewer images than this, so that the first of them does not stop a job alone.
LEAST_IMAGES_JUDGED = 20

# Written out, not bound: there is an index for this very condition.
_IS_OWED = text("SELECT 1 FROM chunks WHERE job_id = :job_id AND state IN ('pending', 'running') LIMIT 1")


def lock_job(session: Session, job_id: int) -> Job:
    """Return a job, its row locked until the transaction ends.

    The lock leaves the row's key alone, so that it keeps nobody from writing chunks or items of the job: whoever holds
    chunks may then write new ones while a cancellation holds the job.

    Raises:
        JobNotFound: there is none.
    """
    session.flush()
    job = session.get(Job, job_id, with_for_update={"key_share": True}, populate_existing=True)
    if job is None:
        raise JobNotFound(f"There is no job {job_id}.", job_id=job_id)
    return job


def finish_if_done(session: Session, job_id: int) -> bool:
    """Stop a job that has too many failures, and end one of which nothing is owed any more.

    The job row is locked first: of two last chunks completing at once, the second waits and then sees the first.

    Returns:
        Whether the job is final now.
    """
    job = lock_job(session, job_id)
    if job.state.is_final:
        return True
    if _is_over_budget(job):
        stop_job(session, job, FailureBudgetExceeded())
        job = lock_job(session, job_id)
    if job.enumerated_at is None or job.retry_cursor is not None:
        return False
    if session.scalar(_IS_OWED, {"job_id": job_id}) is not None:
        return False
    counts = count_items(job)
    if job.cancel_requested_at is not None:
        job.state = JobState.CANCELLED
    elif counts[ItemState.SUCCEEDED] == 0:
        job.state = JobState.FAILED
    elif counts[ItemState.FAILED] or job.label_errors or job.error_code:
        job.state = JobState.PARTIAL
    else:
        job.state = JobState.SUCCEEDED
    job.finished_at = session.scalar(select(func.now()))
    # A retry opens the job again, and means it.
    job.paused_at = None
    tell_of_end(session, job)
    return True


def _is_over_budget(job: Job) -> bool:
    if job.max_failed_share is None or is_stopping(job):
        return False
    ended = job.succeeded_images + job.failed_images
    return job.failed_images > job.max_failed_share * max(ended, LEAST_IMAGES_JUDGED)


def is_stopping(job: Job) -> bool:
    """Return whether nothing of a job is begun any more, because of a person or by itself."""
    return job.cancel_requested_at is not None or job.stopped_at is not None


def stop_overdue_jobs(session: Session, *, most: int) -> bool:
    """Stop some jobs whose deadline has passed, and say whether there were any; those in others' hands are left out."""
    overdue = (
        select(Job)
        .where(
            Job.state.in_((JobState.PENDING, JobState.RUNNING)),
            Job.deadline_at <= func.now(),
            Job.cancel_requested_at.is_(None),
            Job.stopped_at.is_(None),
        )
        .order_by(Job.id)
        .limit(most)
        .with_for_update(skip_locked=True, key_share=True)
    )
    jobs = session.scalars(overdue).all()
    for job in jobs:
        stop_job(session, job, DeadlineExceeded())
        finish_if_done(session, job.id)
    return bool(jobs)


def stop_job(session: Session, job: Job, error: DefectoscopeError) -> None:
    """Have a job, whose row is locked, begin nothing more; what is not done fails by this error.

    Chunks not begun end here or, where there are many, at the reconciler's next ticks; those in work end between two of
    their batches. A listing that is under way ends where it is.
    """
    now = session.scalar(select(func.now()))
    job.stopped_at = now
    job.error_code, job.error_message = error.code, error.message
    if job.enumerated_at is None:
        job.enumerated_at = now
    job.retry_cursor = None
    end_waiting_chunks(session, job)


def end_waiting_chunks(session: Session, job: Job) -> None:
    """End chunks of a stopping job, whose row is locked, that nobody has begun: as many as one transaction may."""
    waiting = (
        select(Chunk.id)
        .where(Chunk.job_id == job.id, Chunk.state == ChunkState.PENDING)
        .order_by(Chunk.id)
        .limit(STOPPED_AT_ONCE)
    )
    # A chunk that somebody is writing at this moment is passed over: waiting for it with the job's lock in hand
    # could be a deadlock. It is claimed, and its worker hears of the stop, or the reconciler ends it.
    end_chunks(session, job, session.scalars(waiting.with_for_update(skip_locked=True)).all())


def end_rest_of_chunk(session: Session, job_id: int, chunk_id: int) -> None:
    """End what a worker left undone in its chunk because the job is stopping, or overdue."""
    job = lock_job(session, job_id)
    if not is_stopping(job):
        stop_job(session, job, DeadlineExceeded())
    end_chunks(session, job, [chunk_id])


def end_chunks(session: Session, job: Job, chunk_ids: Sequence[int]) -> None:
    """End chunks of a stopping job, and what is pending in them as the job's stop has it."""
    if not chunk_ids:
        return
    session.flush()
    session.execute(
        update(Chunk)
        .where(Chunk.id.in_(chunk_ids))
        .values(state=ChunkState.CANCELLED, lease_owner=None, lease_expires_at=None, finished_at=func.now())
        .execution_options(synchronize_session=False)
    )
    if job.cancel_requested_at is not None:
        change_counts(session, job.id, **_moved("cancelled", end_items(session, chunk_ids, state=ItemState.CANCELLED)))
    else:
        failed = end_items(session, chunk_ids, state=ItemState.FAILED, code=job.error_code, message=job.error_message)
        change_counts(session, job.id, **_moved("failed", failed))


def _moved(state: str, images: int) -> dict[str, int]:
    return {"pending": -images, state: images}


def end_items(
    session: Session,
    chunk_ids: Sequence[int],
    *,
    state: ItemState,
    code: str | None = None,
    message: str | None = None,
) -> int:
    """End what is still pending in some chunks, and return how many images that were; the caller counts them."""
    ended = session.execute(
        update(JobItem)
        .where(JobItem.chunk_id.in_(chunk_ids), JobItem.state == ItemState.PENDING)
        .values(state=state, error_code=code, error_message=message)
        .returning(JobItem.id)
        .execution_options(synchronize_session=False)
    )
    return len(ended.all())
