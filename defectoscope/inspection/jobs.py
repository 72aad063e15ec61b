"""The life of a job after its submission: known in full, cancelled, retried, finished.

Each step is one transaction that leaves no state half way.
"""

from __future__ import annotations

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from defectoscope.database import Database, ItemState, Job, JobItem, JobState, ModelVersion, Priority, after_commit
from defectoscope.errors import DefectoscopeError
from defectoscope.errors.jobs import (
    FailureBudgetExceeded,
    JobNotCancellable,
    JobNotPausable,
    JobNotRetryable,
    NoImagesFound,
)
from defectoscope.errors.models import ModelWeightsDropped
from defectoscope.inspection.ending import end_waiting_chunks, finish_if_done, is_stopping, lock_job
from defectoscope.inspection.items import rechunk
from defectoscope.inspection.job_events import tell_of_end
from defectoscope.inspection.totals import change_counts
from defectoscope.queue import WAITING_DOORBELLS, Queue, ring_for_chunks

#: Images that one transaction opens again, and transactions that a request for it takes; the reconciler does the rest.
RETRIED_AT_ONCE = 10_000
_RETRY_TURNS = 10


def end_enumeration(session: Session, job: Job) -> None:
    """Mark every image of a job as known; a job without one has failed."""
    _close_enumeration(session, job, if_empty=NoImagesFound())


def fail_enumeration(*, database: Database, job_id: int, error: DefectoscopeError) -> None:
    """End a job whose source cannot be read. What was enumerated before stays and runs to its end."""
    with database.transaction() as session:
        job = lock_job(session, job_id)
        if job.enumerated_at is not None:
            return
        job.error_code, job.error_message = error.code, error.message
        _close_enumeration(session, job, if_empty=error)


def _close_enumeration(session: Session, job: Job, *, if_empty: DefectoscopeError) -> None:
    job.enumerated_at = session.scalar(select(func.now()))
    session.flush()
    if session.scalar(select(JobItem.id).where(JobItem.job_id == job.id).limit(1)) is not None:
        finish_if_done(session, job.id)
        return
    job.state = JobState.FAILED
    job.error_code, job.error_message = if_empty.code, if_empty.message
    job.finished_at = session.scalar(select(func.now()))
    tell_of_end(session, job)


def cancel_job(*, database: Database, job_id: int) -> None:
    """Ask for a job to stop.

    Chunks not begun end here or, where there are many, at the reconciler's next ticks; those in work end between two of
    their batches.

    Raises:
        JobNotFound: there is none.
        JobNotCancellable: it has ended.
    """
    with database.transaction() as session:
        job = lock_job(session, job_id)
        if job.state.is_final:
            raise JobNotCancellable(f"Job {job_id} has already ended ({job.state}).", job_id=job_id, state=job.state)
        if job.cancel_requested_at is None:
            job.cancel_requested_at = session.scalar(select(func.now()))
        if job.enumerated_at is None:
            job.enumerated_at = job.cancel_requested_at
        job.retry_cursor = None
        end_waiting_chunks(session, job)
        finish_if_done(session, job_id)


def pause_job(*, database: Database, job_id: int) -> None:
    """Have no further chunk of a job claimed. Chunks in work are finished, and images go on being listed.

    A paused job can be cancelled; pausing it again changes nothing.

    Raises:
        JobNotFound: there is none.
        JobNotPausable: it has ended.
    """
    with database.transaction() as session:
        job = _lock_open_job(session, job_id)
        if job.paused_at is None:
            job.paused_at = session.scalar(select(func.now()))


def resume_job(*, database: Database, queue: Queue, job_id: int) -> None:
    """Have the chunks of a paused job claimed again. Nothing changes where it was not paused.

    Raises:
        JobNotFound: there is none.
        JobNotPausable: it has ended.
    """
    with database.transaction() as session:
        job = _lock_open_job(session, job_id)
        job.paused_at = None
        after_commit(session, lambda: ring_for_chunks(queue, chunks=WAITING_DOORBELLS))


def _lock_open_job(session: Session, job_id: int) -> Job:
    job = lock_job(session, job_id)
    if job.state.is_final or is_stopping(job):
        ending = "has already ended" if job.state.is_final else "is being stopped"
        raise JobNotPausable(f"Job {job_id} {ending}.", job_id=job_id, state=job.state)
    return job


def prioritise_job(*, database: Database, job_id: int, priority: Priority) -> None:
    """Set which jobs a job goes before. It holds from the next claim on, and after a retry too.

    Raises:
        JobNotFound: there is none.
    """
    with database.transaction() as session:
        lock_job(session, job_id).priority = priority


def check_model_files(session: Session, model_version_id: int) -> None:
    """Refuse a model version whose files were dropped, and keep it from losing them until the transaction ends.

    Raises:
        ModelWeightsDropped: its files are gone.
    """
    version = session.get(ModelVersion, model_version_id, with_for_update={"read": True, "key_share": True})
    if version is not None and version.weights_dropped_at is not None:
        raise ModelWeightsDropped(f"The files of model version {version.number} were dropped.", number=version.number)


def retry_failed(*, database: Database, queue: Queue, job_id: int, chunk_size: int) -> int:
    """Open an ended job again for its failed images.

    Where there are very many, the reconciler opens the last of them. A deadline that has passed no longer holds, nor
    does a failure budget that the job was stopped for: a retry is a person's decision.

    Returns:
        How many images are tried again by this call.

    Raises:
        JobNotFound: there is none.
        JobNotRetryable: it is running, was cancelled, or has no failed image that can be read at all.
        ModelWeightsDropped: the files of the version it is pinned to are gone.
    """
    with database.transaction() as session:
        job = lock_job(session, job_id)
        if not job.state.is_final or job.state is JobState.CANCELLED:
            raise JobNotRetryable(f"Job {job_id} is {job.state}; only an ended job can be retried.", state=job.state)
        check_model_files(session, job.model_version_id)
        if session.scalar(_failed_items(job_id).limit(1)) is None:
            raise JobNotRetryable(f"Job {job_id} has no failed image to retry.", job_id=job_id)
        _open_again(session, job)
        retried = more = _retry_some(session, queue, job, chunk_size)
    turns = 1
    while more == RETRIED_AT_ONCE and turns < _RETRY_TURNS:
        more = continue_retry(database=database, queue=queue, job_id=job_id, chunk_size=chunk_size)
        retried, turns = retried + more, turns + 1
    return retried


def continue_retry(*, database: Database, queue: Queue, job_id: int, chunk_size: int) -> int:
    """Open some more images of a job that is being retried, and return how many; 0 when that was all."""
    with database.transaction() as session:
        job = lock_job(session, job_id)
        return 0 if job.retry_cursor is None else _retry_some(session, queue, job, chunk_size)


def _open_again(session: Session, job: Job) -> None:
    job.state = JobState.RUNNING
    job.finished_at = None
    job.retry_cursor = 0
    if job.stopped_at is not None:
        if job.error_code == FailureBudgetExceeded.code:
            job.max_failed_share = None
        job.stopped_at = job.error_code = job.error_message = None
    if session.scalar(select(Job.deadline_at <= func.now()).where(Job.id == job.id)):
        job.deadline_at = None


def _retry_some(session: Session, queue: Queue, job: Job, chunk_size: int) -> int:
    # In the order of their ids, each looked at once: an image that fails again meanwhile lies behind the cursor.
    after = JobItem.id > job.retry_cursor
    failed = session.scalars(_failed_items(job.id).where(after).order_by(JobItem.id).limit(RETRIED_AT_ONCE)).all()
    job.retry_cursor = failed[-1] if len(failed) == RETRIED_AT_ONCE else None
    session.flush()
    rechunk(session, queue, job.id, failed, chunk_size=chunk_size)
    change_counts(session, job.id, failed=-len(failed), pending=len(failed))
    if job.retry_cursor is None:
        finish_if_done(session, job.id)
    return len(failed)


def _failed_items(job_id: int) -> Select[int]:
    # An archive member that was never read has no address to try again.
    return select(JobItem.id).where(
        JobItem.job_id == job_id, JobItem.state == ItemState.FAILED, JobItem.source_uri != ""
    )
