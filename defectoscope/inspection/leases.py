"""What becomes of a claim: looked after while the work lasts, given back when it does not come to its end."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from sqlalchemy import text

from defectoscope.database import Database
from defectoscope.inspection.backoff import BACKOFF, DELAY, Backoff
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
    SELECT chunks.id, chunks.lease_token, CASE
        WHEN jobs.cancel_requested_at IS NULL AND jobs.stopped_at IS NULL
            AND (jobs.deadline_at IS NULL OR jobs.deadline_at > now()) THEN 'held'
        ELSE 'stopped'
    END
    FROM unnest(CAST(:ids AS bigint[]), CAST(:tokens AS bigint[])) AS held (id, token)
    JOIN chunks ON chunks.id = held.id AND chunks.lease_token = held.token AND chunks.state = 'running'
    JOIN jobs ON jobs.id = chunks.job_id
""")
_RELEASE = text(f"""
    UPDATE chunks SET state = 'pending', lease_owner = NULL, lease_expires_at = NULL,
        attempts = chunks.attempts - CASE WHEN :is_counted THEN 0 ELSE 1 END,
        postponements = chunks.postponements + CASE WHEN :is_postponed THEN 1 ELSE 0 END,
        next_run_at = CASE WHEN :is_counted OR :is_postponed THEN now() + {DELAY} END,
        fault = CAST(:fault AS text)
    WHERE chunks.id = :id AND chunks.lease_token = :token AND chunks.state = 'running'
""")  # noqa: S608 -- made of constants


class Lease(StrEnum):
    """What a look at a claim found; `stopped`: its job was cancelled, stopped by itself or is overdue."""

    HELD = "held"
    STOPPED = "stopped"
    LOST = "lost"


class Release(StrEnum):
    """Why a chunk is given back.

    `stopped`: the worker ends. Anybody may claim the chunk at once, and the claim does not count.
    `postponed`: a server or this machine's GPU is away. The chunk rests, and the claim does not count: an outage never
    uses up the attempts of an image.
    `broken`: the work ended in an error that nobody foresaw. The chunk rests, and the claim counts, as it does when the
    worker is lost.
    """

    STOPPED = "stopped"
    POSTPONED = "postponed"
    BROKEN = "broken"


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


def release_chunk(
    *, database: Database, chunk: ClaimedChunk, why: Release, fault: str | None = None, backoff: Backoff = BACKOFF
) -> None:
    """Give a chunk back unfinished.

    Args:
        database: where ownership is decided.
        chunk: as claimed; nothing happens when it is no longer ours.
        why: decides when it may be claimed again, and whether the claim counts.
        fault: what a broken chunk ended in: the name of an error, for people.
        backoff: how long it rests after a fault.
    """
    asked = {
        "id": chunk.chunk_id,
        "token": chunk.token,
        "is_counted": why is Release.BROKEN,
        "is_postponed": why is Release.POSTPONED,
        "fault": fault,
    }
    with database.transaction() as session:
        session.execute(_RELEASE, asked | backoff.bound())
