"""What becomes of a claim: looked after while the work lasts, given back when it does not come to its end."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from sqlalchemy import text, update

from defectoscope.database import Chunk, ChunkState, Database
from defectoscope.inspection.chunks import ClaimedChunk

# A chunk that is being completed at this moment is passed over: while this waited for it, other leases would run out.
_RENEW = text("""
    UPDATE chunks SET lease_expires_at = now() + make_interval(secs => :lease_s)
    WHERE id IN (
        SELECT chunks.id FROM unnest(CAST(:ids AS bigint[]), CAST(:tokens AS bigint[])) AS held (id, token)
        JOIN chunks ON chunks.id = held.id AND chunks.lease_token = held.token AND chunks.state = 'running'
        FOR UPDATE OF chunks SKIP LOCKED
    )
""")
_LOOK = text("""
    SELECT chunks.id, chunks.lease_token, CASE WHEN jobs.cancel_requested_at IS NULL THEN 'held' ELSE 'cancelled' END
    FROM unnest(CAST(:ids AS bigint[]), CAST(:tokens AS bigint[])) AS held (id, token)
    JOIN chunks ON chunks.id = held.id AND chunks.lease_token = held.token AND chunks.state = 'running'
    JOIN jobs ON jobs.id = chunks.job_id
""")


class Lease(StrEnum):
    """What a look at a claim found."""

    HELD = "held"
    CANCELLED = "cancelled"
    LOST = "lost"


def look_after(*, database: Database, chunks: Sequence[ClaimedChunk], renew_for_s: int | None = None) -> list[Lease]:
    """Say what became of some claims, all in one question, and renew those that still hold if wanted.

    Args:
        database: where ownership is decided.
        chunks: as claimed.
        renew_for_s: seconds from now, by the database's clock, that their leases last; None leaves them as they are.

    Returns:
        One answer for each chunk, in order.
    """
    held = {"ids": [chunk.chunk_id for chunk in chunks], "tokens": [chunk.token for chunk in chunks]}
    with database.transaction() as session:
        if renew_for_s is not None:
            session.execute(_RENEW, {**held, "lease_s": renew_for_s})
        found = {(id_, token): Lease(state) for id_, token, state in session.execute(_LOOK, held)}
    return [found.get((chunk.chunk_id, chunk.token), Lease.LOST) for chunk in chunks]


def release_chunk(*, database: Database, chunk: ClaimedChunk, count_attempt: bool) -> None:
    """Give a chunk back unfinished; anybody may claim it at once.

    Args:
        database: where ownership is decided.
        chunk: as claimed; nothing happens when it is no longer ours.
        count_attempt: False when the chunk is not to blame (storage away, worker stopping), so that an outage never
            uses up the attempts of an image.
    """
    with database.transaction() as session:
        session.execute(
            update(Chunk)
            .where(Chunk.id == chunk.chunk_id, Chunk.lease_token == chunk.token, Chunk.state == ChunkState.RUNNING)
            .values(
                state=ChunkState.PENDING,
                attempts=Chunk.attempts if count_attempt else Chunk.attempts - 1,
                lease_owner=None,
                lease_expires_at=None,
            )
        )
