"""Reconciliation: finds owed work that nobody holds and rings again, so that a lost message is only a delay."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import structlog
from sqlalchemy import Interval, and_, cast, func, or_, select, text, update
from sqlalchemy.orm import Session

from defectoscope.database import Chunk, ChunkState, Database, ItemState, Job, JobItem, JobState, after_commit
from defectoscope.errors import WorkerLost
from defectoscope.inspection.items import open_chunks
from defectoscope.inspection.jobs import UNFINISHED_CHUNKS, cancel_chunks, finish_if_done
from defectoscope.queue import Queue, messages, send_or_leave

log = structlog.get_logger(__name__)

#: Chunks looked at in one tick, so that a tick stays short whatever has piled up.
TICK_LIMIT = 200
#: A chunk of several images whose worker was lost this often goes on image by image, so that a poisonous file fails
#: alone.
ATTEMPTS_BEFORE_SPLIT = 2


def reconcile(*, database: Database, queue: Queue, resend_after_s: int, max_attempts: int) -> None:
    """Do one bounded tick. Of several at the same moment, one works and the others do nothing."""
    stale = func.now() - cast(timedelta(seconds=resend_after_s), Interval)
    # A transaction for each step: the second holds chunks and the third holds jobs, and elsewhere a job may be waited
    # for with a chunk in hand. No transaction may do it the other way round.
    with database.transaction() as session:
        if _is_elected(session):
            _resend_enumerations(session, queue, stale)
    with database.transaction() as session:
        if _is_elected(session):
            _settle_chunks(session, queue, stale, max_attempts)
    with database.transaction() as session:
        if _is_elected(session):
            _finish_jobs(session)


def _is_elected(session: Session) -> bool:
    return bool(session.scalar(text("SELECT pg_try_advisory_xact_lock(hashtext('inspection.reconcile'))")))


def _resend_enumerations(session: Session, queue: Queue, stale: Any) -> None:
    owed = session.scalars(
        update(Job)
        .where(
            Job.state.in_((JobState.PENDING, JobState.RUNNING)),
            Job.enumerated_at.is_(None),
            or_(Job.dispatched_at.is_(None), Job.dispatched_at < stale),
        )
        .values(dispatched_at=func.now())
        .returning(Job.id)
        .execution_options(synchronize_session=False)
    ).all()
    if owed:
        log.info("enumeration.resent", jobs=list(owed))
        after_commit(session, lambda: send_or_leave(queue, [messages.enumerate_job(job_id) for job_id in owed]))


def _settle_chunks(session: Session, queue: Queue, stale: Any, max_attempts: int) -> None:
    """Send again, split or give up every chunk that is owed and held by nobody."""
    owed = session.scalars(
        select(Chunk)
        .join(Job, Job.id == Chunk.job_id)
        .where(
            or_(
                and_(
                    Chunk.state == ChunkState.PENDING,
                    or_(
                        Chunk.dispatched_at.is_(None),
                        Chunk.dispatched_at < stale,
                        # A cancellation passed over it because it was being written at that moment.
                        Job.cancel_requested_at.is_not(None),
                    ),
                ),
                and_(Chunk.state == ChunkState.RUNNING, Chunk.lease_expires_at < func.now()),
            )
        )
        # Running before pending, and what has no message before what has an old one: behind a long queue every message
        # grows old, and those chunks must not hide the ones that nobody else will ever look at.
        .order_by(Chunk.state.desc(), Chunk.dispatched_at.asc().nulls_first(), Chunk.id)
        .limit(TICK_LIMIT)
        .with_for_update(of=Chunk, skip_locked=True)
    ).all()
    resent: list[int] = []
    for chunk in owed:
        if session.scalar(select(Job.cancel_requested_at).where(Job.id == chunk.job_id)) is not None:
            cancel_chunks(session, [chunk.id])
        elif chunk.attempts >= min(ATTEMPTS_BEFORE_SPLIT, max_attempts) and _pending_count(session, chunk.id) > 1:
            _split(session, queue, chunk)
        elif chunk.attempts >= max_attempts:
            _give_up(session, chunk)
        else:
            chunk.state = ChunkState.PENDING
            chunk.lease_owner = chunk.lease_expires_at = None
            chunk.dispatched_at = session.scalar(select(func.now()))
            resent.append(chunk.id)
    session.flush()
    if resent:
        log.info("chunk.resent", chunks=resent)
        after_commit(session, lambda: send_or_leave(queue, [messages.process_chunk(chunk_id) for chunk_id in resent]))


def _pending_count(session: Session, chunk_id: int) -> int:
    pending = select(func.count()).where(JobItem.chunk_id == chunk_id, JobItem.state == ItemState.PENDING)
    return session.scalar(pending) or 0


def _split(session: Session, queue: Queue, chunk: Chunk) -> None:
    """Give every pending image of a chunk a chunk of its own."""
    item_ids = session.scalars(
        select(JobItem.id).where(JobItem.chunk_id == chunk.id, JobItem.state == ItemState.PENDING).order_by(JobItem.id)
    ).all()
    log.warning("chunk.split", job=chunk.job_id, chunk=chunk.id, images=len(item_ids), attempts=chunk.attempts)
    for item_id, chunk_id in zip(item_ids, open_chunks(session, queue, chunk.job_id, len(item_ids)), strict=True):
        session.execute(update(JobItem).where(JobItem.id == item_id).values(chunk_id=chunk_id))
    _close(session, chunk, ChunkState.SPLIT)


def _give_up(session: Session, chunk: Chunk) -> None:
    """Fail the one image that takes its worker down every time."""
    error = WorkerLost()
    log.error("image.given_up", job=chunk.job_id, chunk=chunk.id, attempts=chunk.attempts, code=error.code)
    session.execute(
        update(JobItem)
        .where(JobItem.chunk_id == chunk.id, JobItem.state == ItemState.PENDING)
        .values(state=ItemState.FAILED, error_code=error.code, error_message=error.message)
    )
    _close(session, chunk, ChunkState.DONE)


def _close(session: Session, chunk: Chunk, state: ChunkState) -> None:
    chunk.state = state
    chunk.lease_owner = chunk.lease_expires_at = None
    chunk.finished_at = session.scalar(select(func.now()))


def _finish_jobs(session: Session) -> None:
    """End jobs whose last chunk was settled without a worker."""
    unfinished = select(Chunk.id).where(Chunk.job_id == Job.id, Chunk.state.in_(UNFINISHED_CHUNKS))
    done = select(Job.id).where(
        Job.state.in_((JobState.PENDING, JobState.RUNNING)), Job.enumerated_at.is_not(None), ~unfinished.exists()
    )
    for job_id in session.scalars(done.limit(TICK_LIMIT)).all():
        finish_if_done(session, job_id)
