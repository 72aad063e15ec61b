"""The life of a job after its submission: known in full, cancelled, retried, finished.

Each step is one transaction that leaves no state half way.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import func, select, text, update
from sqlalchemy.orm import Session

from defectoscope.database import (
    Chunk,
    ChunkState,
    Database,
    ItemState,
    Job,
    JobItem,
    JobState,
    ModelVersion,
    Priority,
    after_commit,
)
from defectoscope.errors import (
    DefectoscopeError,
    JobNotCancellable,
    JobNotFound,
    JobNotPausable,
    JobNotRetryable,
    ModelWeightsDropped,
    NoImagesFound,
)
from defectoscope.inspection.items import rechunk
from defectoscope.inspection.job_events import tell_of_end
from defectoscope.inspection.totals import change_counts, count_items
from defectoscope.queue import WAITING_DOORBELLS, Queue, ring_for_chunks

#: While a chunk is in one of these, its job is owed something.
UNFINISHED_CHUNKS = (ChunkState.PENDING, ChunkState.RUNNING)
#: Chunks that one transaction cancels. A million images have more: the reconciler ends the others, as many at a time.
CANCELLED_AT_ONCE = 200

# Written out, not bound: there is an index for this very condition.
_IS_OWED = text("SELECT 1 FROM chunks WHERE job_id = :job_id AND state IN ('pending', 'running') LIMIT 1")


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


def lock_job(session: Session, job_id: int) -> Job:
    """Return a job, its row locked until the transaction ends.

    The lock leaves the row's key alone, so that it keeps nobody from writing chunks or items of the job: whoever holds
    chunks may then write new ones while a cancellation holds the job.

    Raises:
        JobNotFound: there is none.
    """
    job = session.get(Job, job_id, with_for_update={"key_share": True}, populate_existing=True)
    if job is None:
        raise JobNotFound(f"There is no job {job_id}.", job_id=job_id)
    return job


def finish_if_done(session: Session, job_id: int) -> bool:
    """End a job when nothing of it is owed any more.

    The job row is locked first: of two last chunks completing at once, the second waits and then sees the first.

    Returns:
        Whether the job is final now.
    """
    session.flush()
    job = lock_job(session, job_id)
    if job.state.is_final:
        return True
    if job.enumerated_at is None:
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
        waiting = (
            select(Chunk.id)
            .where(Chunk.job_id == job_id, Chunk.state == ChunkState.PENDING)
            .order_by(Chunk.id)
            .limit(CANCELLED_AT_ONCE)
        )
        # A chunk that somebody is writing at this moment is passed over: waiting for it with the job's lock in hand
        # could be a deadlock. It is claimed, and its worker hears of the cancellation, or the reconciler ends it.
        cancel_chunks(session, job_id, session.scalars(waiting.with_for_update(skip_locked=True)).all())
        finish_if_done(session, job_id)


def cancel_chunks(session: Session, job_id: int, chunk_ids: Sequence[int]) -> None:
    """End chunks of a job and what is still pending in them; the job's row stays locked."""
    if not chunk_ids:
        return
    session.execute(
        update(Chunk)
        .where(Chunk.id.in_(chunk_ids))
        .values(state=ChunkState.CANCELLED, lease_owner=None, lease_expires_at=None, finished_at=func.now())
        .execution_options(synchronize_session=False)
    )
    ended = end_items(session, chunk_ids, state=ItemState.CANCELLED)
    change_counts(session, job_id, pending=-ended, cancelled=ended)


def end_items(
    session: Session, chunk_ids: Sequence[int], *, state: ItemState, error: DefectoscopeError | None = None
) -> int:
    """End what is still pending in some chunks, and return how many images that were; the caller counts them."""
    ended = session.execute(
        update(JobItem)
        .where(JobItem.chunk_id.in_(chunk_ids), JobItem.state == ItemState.PENDING)
        .values(state=state, error_code=error and error.code, error_message=error and error.message)
        .returning(JobItem.id)
        .execution_options(synchronize_session=False)
    )
    return len(ended.all())


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
    if job.state.is_final or job.cancel_requested_at is not None:
        ending = "has already ended" if job.state.is_final else "is being cancelled"
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

    Returns:
        How many images are tried again.

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
        failed = session.scalars(
            select(JobItem.id)
            # An archive member that was never read has no address to try again.
            .where(JobItem.job_id == job_id, JobItem.state == ItemState.FAILED, JobItem.source_uri != "")
            .order_by(JobItem.id)
        ).all()
        if not failed:
            raise JobNotRetryable(f"Job {job_id} has no failed image to retry.", job_id=job_id)
        rechunk(session, queue, job_id, failed, chunk_size=chunk_size)
        change_counts(session, job_id, failed=-len(failed), pending=len(failed))
        job.state = JobState.RUNNING
        job.finished_at = None
        return len(failed)
