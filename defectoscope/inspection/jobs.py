"""Jobs: submitted, enumerated, cancelled, retried, finished. Each is one transaction that leaves no state half way."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from defectoscope.database import Chunk, ChunkState, Database, ItemState, Job, JobItem, JobState, after_commit
from defectoscope.errors import (
    DefectoscopeError,
    IdempotencyConflict,
    InvalidRequest,
    JobNotCancellable,
    JobNotFound,
    JobNotRetryable,
    NoImagesFound,
)
from defectoscope.inspection.params import JobParams
from defectoscope.inspection.sources import (
    MAX_NAME_BYTES,
    Archive,
    ExplicitImages,
    Prefix,
    Source,
    SourceImage,
    is_item_name,
)
from defectoscope.queue import Queue, messages, send_or_leave

_UNFINISHED = (ChunkState.PENDING, ChunkState.RUNNING)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRequest:
    """What somebody wants inspected, with defaults already resolved."""

    source: Source
    params: JobParams
    model_version_id: int
    name: str | None = None
    idempotency_key: str | None = None

    @property
    def sha256(self) -> str:
        """Hash that tells a repeated request from a different one under the same idempotency key."""
        described: dict[str, Any] = {
            "source": describe_source(self.source),
            "params": self.params.to_json(),
            "name": self.name,
        }
        if isinstance(self.source, ExplicitImages):
            described["images"] = [[image.name, image.uri, image.label_uri] for image in self.source.images]
        return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()


def describe_source(source: Source) -> dict[str, Any]:
    """Return a source as the job row keeps it. A list is kept as its items alone."""
    match source:
        case ExplicitImages(images=images):
            return {"kind": "images", "count": len(images)}
        case Prefix(uri=uri, labels_uri=labels_uri):
            return {"kind": "prefix", "uri": uri, "labels_uri": labels_uri}
        case Archive(uri=uri):
            return {"kind": "archive", "uri": uri}


def read_source(job: Job) -> Prefix | Archive:
    """Return the source of a job that is enumerated by a worker."""
    if job.source["kind"] == "archive":
        return Archive(uri=job.source["uri"])
    return Prefix(uri=job.source["uri"], labels_uri=job.source["labels_uri"])


def submit_job(*, database: Database, queue: Queue, request: JobRequest, chunk_size: int) -> int:
    """Record a job and ring for a worker. The same idempotency key with the same request gives the same job.

    Returns:
        The job's id.

    Raises:
        NoImagesFound: an explicit list is empty.
        InvalidRequest: two images of a list have one name, or a name is empty, too long or holds a null character.
        IdempotencyConflict: the key was used for a different request.
    """
    if isinstance(request.source, ExplicitImages):
        _check_names(request.source.images)
    if request.idempotency_key is not None and (known := _known_job(database, request)) is not None:
        return known
    try:
        with database.transaction() as session:
            return _record_job(session, queue, request, chunk_size)
    except IntegrityError:
        # Two requests with one key at the same moment: the other one was first.
        known = None if request.idempotency_key is None else _known_job(database, request)
        if known is None:
            raise
        return known


def _check_names(images: Sequence[SourceImage]) -> None:
    if not images:
        raise NoImagesFound
    for image in images:
        if not is_item_name(image.name):
            raise InvalidRequest(
                f"An image name has 1 to {MAX_NAME_BYTES} bytes in UTF-8 and no null character.",
                name=ascii(image.name)[:200],
            )
    uses = Counter(image.name for image in images)
    twice = sorted(name for name, count in uses.items() if count > 1)[:5]
    if twice:
        raise InvalidRequest(f"Image names must be unique within a job; twice: {', '.join(twice)}.", names=twice)


def _known_job(database: Database, request: JobRequest) -> int | None:
    with database.transaction() as session:
        job = session.scalar(select(Job).where(Job.idempotency_key == request.idempotency_key))
        if job is None:
            return None
        if job.request_sha256 != request.sha256:
            raise IdempotencyConflict(job_id=job.id)
        return job.id


def _record_job(session: Session, queue: Queue, request: JobRequest, chunk_size: int) -> int:
    job = Job(
        name=request.name,
        source=describe_source(request.source),
        params=request.params.to_json(),
        model_version_id=request.model_version_id,
        idempotency_key=request.idempotency_key,
        request_sha256=request.sha256,
        dispatched_at=func.now(),
    )
    session.add(job)
    session.flush()
    if isinstance(request.source, ExplicitImages):
        add_images(session, queue, job, request.source.images, chunk_size=chunk_size)
        end_enumeration(session, job)
    else:
        message = messages.enumerate_job(job.id)
        after_commit(session, lambda: send_or_leave(queue, [message]))
    return job.id


def add_images(session: Session, queue: Queue, job: Job, images: Sequence[SourceImage], *, chunk_size: int) -> None:
    """Write the items of some images, cut into chunks; their messages leave after the commit.

    Images that are known to be unusable become failed items and take no place in a chunk.
    """
    usable = [image for image in images if image.error is None]
    slices = [usable[start : start + chunk_size] for start in range(0, len(usable), chunk_size)]
    chunk_ids = open_chunks(session, queue, job.id, len(slices))
    rows = [
        _item_row(job.id, image, chunk_id)
        for chunk_id, images_of_chunk in zip(chunk_ids, slices, strict=True)
        for image in images_of_chunk
    ]
    rows += [_item_row(job.id, image, None) for image in images if image.error is not None]
    if rows:
        session.execute(insert(JobItem), rows)
        job.state = JobState.RUNNING


def _item_row(job_id: int, image: SourceImage, chunk_id: int | None) -> dict[str, Any]:
    return {
        "job_id": job_id,
        "chunk_id": chunk_id,
        "name": image.name,
        "state": ItemState.FAILED if image.error else ItemState.PENDING,
        "source_uri": image.uri,
        "source_etag": image.etag,
        "label_uri": image.label_uri,
        "error_code": image.error.code if image.error else None,
        "error_message": image.error.message if image.error else None,
        "label_error_code": image.label_error.code if image.label_error else None,
        "label_error_message": image.label_error.message if image.label_error else None,
    }


def open_chunks(session: Session, queue: Queue, job_id: int, count: int) -> Sequence[int]:
    """Write empty chunks; their messages leave after the commit."""
    if not count:
        return []
    now = session.scalar(select(func.now()))
    ids = session.scalars(
        insert(Chunk).returning(Chunk.id, sort_by_parameter_order=True),
        [{"job_id": job_id, "dispatched_at": now} for _ in range(count)],
    ).all()
    after_commit(session, lambda: send_or_leave(queue, [messages.process_chunk(chunk_id) for chunk_id in ids]))
    return ids


def end_enumeration(session: Session, job: Job) -> None:
    """Mark every image of a job as known; a job without one has failed."""
    job.enumerated_at = session.scalar(select(func.now()))
    session.flush()
    if session.scalar(select(JobItem.id).where(JobItem.job_id == job.id).limit(1)) is None:
        _end_with_error(session, job, NoImagesFound())
    else:
        finish_if_done(session, job.id)


def fail_enumeration(*, database: Database, job_id: int, error: DefectoscopeError) -> None:
    """End a job whose source cannot be read. What was enumerated before stays and runs to its end."""
    with database.transaction() as session:
        job = lock_job(session, job_id)
        if job.enumerated_at is not None:
            return
        job.error_code, job.error_message = error.code, error.message
        job.enumerated_at = session.scalar(select(func.now()))
        session.flush()
        if session.scalar(select(JobItem.id).where(JobItem.job_id == job.id).limit(1)) is None:
            _end_with_error(session, job, error)
        else:
            finish_if_done(session, job.id)


def _end_with_error(session: Session, job: Job, error: DefectoscopeError) -> None:
    job.state = JobState.FAILED
    job.error_code, job.error_message = error.code, error.message
    job.finished_at = session.scalar(select(func.now()))


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
    unfinished = select(Chunk.id).where(Chunk.job_id == job_id, Chunk.state.in_(_UNFINISHED)).limit(1)
    if session.scalar(unfinished) is not None:
        return False
    counts = count_items(session, job_id)
    flawed_labels = session.scalar(
        select(func.count()).where(JobItem.job_id == job_id, JobItem.label_error_code.is_not(None))
    )
    if job.cancel_requested_at is not None:
        job.state = JobState.CANCELLED
    elif counts[ItemState.SUCCEEDED] == 0:
        job.state = JobState.FAILED
    elif counts[ItemState.FAILED] or flawed_labels or job.error_code:
        job.state = JobState.PARTIAL
    else:
        job.state = JobState.SUCCEEDED
    job.finished_at = session.scalar(select(func.now()))
    return True


def count_items(session: Session, job_id: int) -> dict[ItemState, int]:
    """Return how many images of a job are in each state; computed, never incremented."""
    counts = dict.fromkeys(ItemState, 0)
    rows = session.execute(select(JobItem.state, func.count()).where(JobItem.job_id == job_id).group_by(JobItem.state))
    counts.update(dict(rows.all()))
    return counts


def cancel_job(*, database: Database, job_id: int) -> None:
    """Ask for a job to stop. Chunks not begun end here; those in work end between two of their batches.

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
        waiting = select(Chunk.id).where(Chunk.job_id == job_id, Chunk.state == ChunkState.PENDING)
        # A chunk that somebody is writing at this moment is passed over: waiting for it with the job's lock in hand
        # could be a deadlock. It is claimed, and its worker hears of the cancellation, or the reconciler ends it.
        cancel_chunks(session, session.scalars(waiting.with_for_update(skip_locked=True)).all())
        finish_if_done(session, job_id)


def cancel_chunks(session: Session, chunk_ids: Sequence[int]) -> None:
    """End chunks and what is still pending in them."""
    if not chunk_ids:
        return
    session.execute(
        update(JobItem)
        .where(JobItem.chunk_id.in_(chunk_ids), JobItem.state == ItemState.PENDING)
        .values(state=ItemState.CANCELLED)
    )
    session.execute(
        update(Chunk)
        .where(Chunk.id.in_(chunk_ids))
        .values(state=ChunkState.CANCELLED, lease_owner=None, lease_expires_at=None, finished_at=func.now())
    )


def retry_failed(*, database: Database, queue: Queue, job_id: int, chunk_size: int) -> int:
    """Open an ended job again for its failed images.

    Returns:
        How many images are tried again.

    Raises:
        JobNotFound: there is none.
        JobNotRetryable: it is running, was cancelled, or has no failed image that can be read at all.
    """
    with database.transaction() as session:
        job = lock_job(session, job_id)
        if not job.state.is_final or job.state is JobState.CANCELLED:
            raise JobNotRetryable(f"Job {job_id} is {job.state}; only an ended job can be retried.", state=job.state)
        failed = session.scalars(
            select(JobItem.id)
            # An archive member that was never read has no address to try again.
            .where(JobItem.job_id == job_id, JobItem.state == ItemState.FAILED, JobItem.source_uri != "")
            .order_by(JobItem.id)
        ).all()
        if not failed:
            raise JobNotRetryable(f"Job {job_id} has no failed image to retry.", job_id=job_id)
        slices = [failed[start : start + chunk_size] for start in range(0, len(failed), chunk_size)]
        for chunk_id, item_ids in zip(open_chunks(session, queue, job_id, len(slices)), slices, strict=True):
            session.execute(
                update(JobItem)
                .where(JobItem.id.in_(item_ids))
                .values(chunk_id=chunk_id, state=ItemState.PENDING, error_code=None, error_message=None)
            )
        job.state = JobState.RUNNING
        job.finished_at = None
        return len(failed)
