"""Reconciliation: settles what no worker can, and rings for owed work, so that a lost message is only a delay.

Any process may reconcile, and several may try at once. Each step is a short transaction of its own, and an advisory
lock of that transaction elects who does it. A row with a lease would have to be renewed, and would outlive its holder.
This lock ends with its transaction, with its connection, and, where a process is stopped in the middle, with the
patience of PostgreSQL for idle transactions (`database/session.py`). Steps lock what they touch by themselves, so that
two elected at once would do no harm either.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import structlog
from sqlalchemy import Interval, cast, func, or_, select, text, update
from sqlalchemy.orm import Session

from defectoscope.crash_points import CrashPoint, crash_point
from defectoscope.database import Chunk, ChunkState, Database, ItemState, Job, JobItem, JobState, after_commit
from defectoscope.errors.jobs import InspectionBroken, WorkerLost
from defectoscope.inspection.backoff import BACKOFF, Backoff
from defectoscope.inspection.chunks import ATTEMPTS_BEFORE_SPLIT, count_claimable
from defectoscope.inspection.ending import (
    STOPPED_AT_ONCE,
    UNFINISHED_CHUNKS,
    end_chunks,
    end_items,
    finish_if_done,
    stop_overdue_jobs,
)
from defectoscope.inspection.items import rechunk
from defectoscope.inspection.jobs import continue_retry
from defectoscope.inspection.quarantine import quarantine_images
from defectoscope.inspection.totals import change_counts
from defectoscope.queue import WAITING_DOORBELLS, Queue, messages, ring_for_chunks, send_or_leave

log = structlog.get_logger(__name__)

#: Images in a chunk where nothing else is said.
CHUNK_SIZE = 16
#: Chunks or jobs looked at in one transaction, so that each stays short whatever has piled up.
TICK_LIMIT = 200
#: Jobs that one transaction stops: each ends up to `STOPPED_AT_ONCE` chunks.
_JOBS_STOPPED_AT_ONCE = 5
#: Transactions in which one tick stops jobs, and in which it ends chunks of theirs: a million images in a few ticks.
_STOP_TURNS = 100
#: Transactions in which one tick opens images that are retried: a million in ten ticks.
_RETRY_TURNS = 10

# The states and the bound are written out, not bound: the partial index is for these very conditions.
_WORN = text("""
    SELECT id FROM chunks
    WHERE state IN ('pending', 'running') AND attempts > 0 AND (state = 'pending' OR lease_expires_at < now())
        AND attempts >= CASE WHEN image_count > 1 THEN :before_split ELSE :max_attempts END
    ORDER BY id LIMIT :limit FOR UPDATE SKIP LOCKED
""")
_OF_STOPPING_JOBS = text("""
    SELECT found.id, found.job_id FROM jobs CROSS JOIN LATERAL (
        SELECT chunks.id, chunks.job_id FROM chunks
        WHERE chunks.job_id = jobs.id AND chunks.state IN ('pending', 'running')
            AND (chunks.state = 'pending' OR chunks.lease_expires_at < now())
        ORDER BY chunks.id LIMIT :limit FOR UPDATE SKIP LOCKED
    ) AS found
    WHERE jobs.state IN ('pending', 'running')
        AND (jobs.cancel_requested_at IS NOT NULL OR jobs.stopped_at IS NOT NULL)
    LIMIT :limit
""")


def reconcile(
    *,
    database: Database,
    queue: Queue,
    resend_after_s: int,
    max_attempts: int,
    backoff: Backoff = BACKOFF,
    chunk_size: int = CHUNK_SIZE,
) -> None:
    """Do one bounded tick. Of several at the same moment, one works and the others do nothing.

    Args:
        database: what is owed.
        queue: where to ring.
        resend_after_s: an enumeration that nobody has been heard of for this long is asked for again.
        max_attempts: claims of a single image before it is given up.
        backoff: as claims have it; nobody is rung for a chunk that rests.
        chunk_size: images in a chunk of those that are retried.
    """
    stale = func.now() - cast(timedelta(seconds=resend_after_s), Interval)
    # A transaction for each step: some hold chunks and the last holds jobs, and elsewhere a job may be waited for with
    # a chunk in hand. No transaction may do it the other way round.
    with database.transaction() as session:
        if _is_elected(session):
            _resend_enumerations(session, queue, stale)
    for _ in range(_STOP_TURNS):
        with database.transaction() as session:
            if not (_is_elected(session) and stop_overdue_jobs(session, most=_JOBS_STOPPED_AT_ONCE)):
                break
    for _ in range(_STOP_TURNS):
        with database.transaction() as session:
            if not (_is_elected(session) and _end_some(session)):
                break
    with database.transaction() as session:
        if _is_elected(session):
            _settle_worn(session, queue, max_attempts)
    _continue_retries(database, queue, chunk_size)
    with database.transaction() as session:
        if _is_elected(session):
            _finish_jobs(session)
    # Doorbells that wait are not rung twice, so that this adds nothing unless some were lost.
    owed = count_claimable(database=database, max_attempts=max_attempts, most=WAITING_DOORBELLS, backoff=backoff)
    ring_for_chunks(queue, chunks=owed, most=owed)


def _is_elected(session: Session) -> bool:
    return bool(session.scalar(text("SELECT pg_try_advisory_xact_lock(hashtext('inspection.reconcile'))")))


def _resend_enumerations(session: Session, queue: Queue, stale: Any) -> None:
    silent = (
        select(Job.id)
        .where(
            Job.state.in_((JobState.PENDING, JobState.RUNNING)),
            Job.enumerated_at.is_(None),
            or_(Job.dispatched_at.is_(None), Job.dispatched_at < stale),
        )
        .order_by(Job.id)
        .limit(TICK_LIMIT)
        .with_for_update(skip_locked=True, key_share=True)
    )
    owed = session.scalars(
        update(Job)
        .where(Job.id.in_(silent))
        .values(dispatched_at=func.now())
        .returning(Job.id)
        .execution_options(synchronize_session=False)
    ).all()
    if owed:
        log.info("enumeration.resent", jobs=list(owed))
        after_commit(session, lambda: send_or_leave(queue, [messages.enumerate_job(job_id) for job_id in owed]))


def _end_some(session: Session) -> bool:
    """End chunks of stopping jobs that nobody holds, and say whether there were any."""
    chunk_ids: dict[int, list[int]] = {}
    for chunk_id, job_id in session.execute(_OF_STOPPING_JOBS, {"limit": STOPPED_AT_ONCE}):
        chunk_ids.setdefault(job_id, []).append(chunk_id)
    for job_id in sorted(chunk_ids):
        end_chunks(session, session.get_one(Job, job_id), chunk_ids[job_id])
    return bool(chunk_ids)


def _continue_retries(database: Database, queue: Queue, chunk_size: int) -> None:
    """Go on with retries whose request has not opened every image, or whose process was lost meanwhile."""
    with database.transaction() as session:
        being_retried = select(Job.id).where(
            Job.state.in_((JobState.PENDING, JobState.RUNNING)), Job.retry_cursor.is_not(None)
        )
        job_ids = session.scalars(being_retried.order_by(Job.id).limit(_RETRY_TURNS)).all()
    for job_id in job_ids:
        for _ in range(_RETRY_TURNS // len(job_ids)):
            if not continue_retry(database=database, queue=queue, job_id=job_id, chunk_size=chunk_size):
                break


def _settle_worn(session: Session, queue: Queue, max_attempts: int) -> None:
    """Split or give up every chunk that was tried so often that it may not be claimed as it is."""
    before_split = min(ATTEMPTS_BEFORE_SPLIT, max_attempts)
    bounds = {"before_split": before_split, "max_attempts": max_attempts, "limit": TICK_LIMIT}
    ids = session.scalars(_WORN, bounds).all()
    chunks = session.scalars(select(Chunk).where(Chunk.id.in_(ids)).order_by(Chunk.job_id, Chunk.id)).all()
    failed_in: list[int] = []
    for chunk in chunks:
        pending = _pending_items(session, chunk.id)
        if len(pending) > 1:
            _split(session, queue, chunk, pending)
        elif chunk.attempts >= max_attempts:
            _give_up(session, chunk)
            failed_in.append(chunk.job_id)
        else:
            # One image is left to try; a chunk of one may be claimed more often.
            chunk.image_count = len(pending)
        session.flush()
    # In the order in which their rows were locked when the images were counted.
    for job_id in dict.fromkeys(failed_in):
        finish_if_done(session, job_id)


def _pending_items(session: Session, chunk_id: int) -> Sequence[int]:
    return session.scalars(
        select(JobItem.id).where(JobItem.chunk_id == chunk_id, JobItem.state == ItemState.PENDING).order_by(JobItem.id)
    ).all()


def _split(session: Session, queue: Queue, chunk: Chunk, item_ids: Sequence[int]) -> None:
    """Give every pending image of a chunk a chunk of its own."""
    log.warning("chunk.split", job=chunk.job_id, chunk=chunk.id, images=len(item_ids), attempts=chunk.attempts)
    rechunk(session, queue, chunk.job_id, item_ids, chunk_size=1)
    _close(session, chunk, ChunkState.SPLIT)
    crash_point(CrashPoint.CHUNK_SPLIT)


def _give_up(session: Session, chunk: Chunk) -> None:
    """Fail the one image whose work breaks off every time."""
    error = WorkerLost() if chunk.fault is None else _broken_by(chunk.fault)
    if chunk.fault is None:
        quarantine_images(session, chunk.id)
    log.error("image.given_up", job=chunk.job_id, chunk=chunk.id, attempts=chunk.attempts, code=error.code)
    failed = end_items(session, [chunk.id], state=ItemState.FAILED, code=error.code, message=error.message)
    change_counts(session, chunk.job_id, pending=-failed, failed=failed)
    _close(session, chunk, ChunkState.DONE)


def _broken_by(fault: str) -> InspectionBroken:
    return InspectionBroken(
        f"The inspection of this image ended in an unexpected error ({fault}), several times; the log has its trace."
    )


def _close(session: Session, chunk: Chunk, state: ChunkState) -> None:
    chunk.state = state
    chunk.lease_owner = chunk.lease_expires_at = None
    chunk.finished_at = session.scalar(select(func.now()))


def _finish_jobs(session: Session) -> None:
    """End jobs whose last chunk was settled without a worker."""
    unfinished = select(Chunk.id).where(Chunk.job_id == Job.id, Chunk.state.in_(UNFINISHED_CHUNKS))
    done = select(Job.id).where(
        Job.state.in_((JobState.PENDING, JobState.RUNNING)),
        Job.enumerated_at.is_not(None),
        Job.retry_cursor.is_(None),
        ~unfinished.exists(),
    )
    for job_id in session.scalars(done.limit(TICK_LIMIT)).all():
        finish_if_done(session, job_id)
