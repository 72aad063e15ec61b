"""Ownership of chunks: claimed with a lease, renewed, released. Who holds what is decided here, in SQL, alone."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import Interval, and_, cast, func, or_, select, update

from defectoscope.database import Chunk, ChunkState, Database, Image, ItemState, Job, JobItem, ModelVersion, Result
from defectoscope.inspection.params import JobParams


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownResult:
    """A result that exists already for an image, this job's model version and its parameters."""

    result_id: int
    mask_key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimedItem:
    """One image to look at."""

    item_id: int
    name: str
    source_uri: str
    source_etag: str | None
    label_uri: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimedChunk:
    """A chunk that this worker holds while its lease lasts. The token fences off a predecessor that wakes up late."""

    chunk_id: int
    job_id: int
    token: int
    model_version: int
    model_version_id: int
    params: JobParams
    items: tuple[ClaimedItem, ...]


class Lease(StrEnum):
    """What a renewal found."""

    HELD = "held"
    CANCELLED = "cancelled"
    LOST = "lost"


def claim_chunk(*, database: Database, chunk_id: int, owner: str, lease_s: int) -> ClaimedChunk | None:
    """Take a chunk that is pending, or whose holder's lease has run out.

    Args:
        database: where ownership is decided.
        chunk_id: from the message.
        owner: host and process, for people.
        lease_s: seconds until it is owed again unless renewed; the database's clock counts.

    Returns:
        The chunk with its pending images, or None when there is nothing to claim: another holds it, it is done, or its
        job was cancelled. A doubled message ends here.
    """
    with database.transaction() as session:
        claimed = session.execute(
            update(Chunk)
            .where(
                Chunk.id == chunk_id,
                or_(
                    Chunk.state == ChunkState.PENDING,
                    and_(Chunk.state == ChunkState.RUNNING, Chunk.lease_expires_at < func.now()),
                ),
                Chunk.job_id == Job.id,
                Job.cancel_requested_at.is_(None),
                ModelVersion.id == Job.model_version_id,
            )
            .values(
                state=ChunkState.RUNNING,
                attempts=Chunk.attempts + 1,
                lease_owner=owner,
                lease_token=Chunk.lease_token + 1,
                lease_expires_at=_from_now(lease_s),
            )
            .returning(Chunk.job_id, Chunk.lease_token, Job.params, Job.model_version_id, ModelVersion.number)
            .execution_options(synchronize_session=False)
        ).one_or_none()
        if claimed is None:
            return None
        items = session.scalars(
            select(JobItem).where(JobItem.chunk_id == chunk_id, JobItem.state == ItemState.PENDING).order_by(JobItem.id)
        )
        return ClaimedChunk(
            chunk_id=chunk_id,
            job_id=claimed.job_id,
            token=claimed.lease_token,
            model_version=claimed.number,
            model_version_id=claimed.model_version_id,
            params=JobParams.from_json(claimed.params),
            items=tuple(
                ClaimedItem(
                    item_id=item.id,
                    name=item.name,
                    source_uri=item.source_uri,
                    source_etag=item.source_etag,
                    label_uri=item.label_uri,
                )
                for item in items
            ),
        )


def find_known_result(*, database: Database, chunk: ClaimedChunk, image_sha256: str) -> KnownResult | None:
    """Return the result of an image under this chunk's model version and parameters, if there is one already."""
    with database.transaction() as session:
        row = session.execute(
            select(Result.id, Result.mask_key)
            .join(Image, Image.id == Result.image_id)
            .where(
                Image.sha256 == image_sha256,
                Result.model_version_id == chunk.model_version_id,
                Result.params_sha256 == chunk.params.result_sha256,
            )
        ).one_or_none()
        return KnownResult(result_id=row.id, mask_key=row.mask_key) if row else None


def renew_lease(*, database: Database, chunk: ClaimedChunk, lease_s: int) -> Lease:
    """Extend the lease of a chunk that is still ours, and learn whether its job was cancelled."""
    with database.transaction() as session:
        row = session.execute(
            update(Chunk)
            .where(*ours(chunk), Job.id == Chunk.job_id)
            .values(lease_expires_at=_from_now(lease_s))
            .returning(Job.cancel_requested_at)
            .execution_options(synchronize_session=False)
        ).one_or_none()
    if row is None:
        return Lease.LOST
    return Lease.CANCELLED if row.cancel_requested_at is not None else Lease.HELD


def release_chunk(*, database: Database, chunk: ClaimedChunk, count_attempt: bool) -> None:
    """Give a chunk back unfinished; the reconciler sends it again.

    Args:
        database: where ownership is decided.
        chunk: as claimed; nothing happens when it is no longer ours.
        count_attempt: False when the chunk is not to blame (storage away, worker stopping), so that an outage never
            uses up the attempts of an image.
    """
    with database.transaction() as session:
        session.execute(
            update(Chunk)
            .where(*ours(chunk))
            .values(
                state=ChunkState.PENDING,
                attempts=Chunk.attempts if count_attempt else Chunk.attempts - 1,
                lease_owner=None,
                lease_expires_at=None,
                # No message stands for it any more: the reconciler's next tick sends one.
                dispatched_at=None,
            )
        )


def ours(chunk: ClaimedChunk) -> tuple[Any, ...]:
    """Return the conditions under which a chunk is still held by the claim that made it."""
    return Chunk.id == chunk.chunk_id, Chunk.lease_token == chunk.token, Chunk.state == ChunkState.RUNNING


def _from_now(seconds: int) -> Any:
    return func.now() + cast(timedelta(seconds=seconds), Interval)
