"""Claims: who works on which chunk, and whose turn it is, is decided here, in SQL, alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import and_, func, select, text

from defectoscope.database import Database, Image, ItemState, JobItem, QuarantinedImage, Result
from defectoscope.inspection.backoff import BACKOFF, DELAY, Backoff
from defectoscope.inspection.params import JobParams

#: A chunk of several images whose worker was lost this often goes on image by image, so that a poisonous file fails
#: alone. The reconciler splits it; until then nobody may claim it.
ATTEMPTS_BEFORE_SPLIT = 2

#: What a chunk must be for a claim: not held, or held under a lease that ran out; not resting after a fault; and not
#: tried too often.
_CLAIMABLE = f"""
    chunks.state IN ('pending', 'running') AND CASE chunks.state
        WHEN 'pending' THEN chunks.next_run_at IS NULL OR chunks.next_run_at <= now()
        ELSE chunks.lease_expires_at < now() AND chunks.lease_expires_at + {DELAY} <= now()
    END
    AND chunks.attempts < CASE WHEN chunks.image_count > 1 THEN least(:attempts_before_split, :max_attempts)
                               ELSE :max_attempts END
"""
#: Jobs that may have such chunks.
_OPEN = """
    jobs.state IN ('pending', 'running') AND jobs.cancel_requested_at IS NULL AND jobs.paused_at IS NULL
    AND jobs.stopped_at IS NULL AND (jobs.deadline_at IS NULL OR jobs.deadline_at > now())
"""

# The states are written out, not bound: the partial indexes are for these very conditions. Jobs are put in order
# first; then one chunk is looked for in each until one is found, so that nothing but the chunk taken is locked. No row
# of a job is written: a claim of one worker never waits for that of another.
#
# Of jobs with equally few chunks in work the next is drawn by lot. By id, a single worker would find nothing in work
# each time it looks, and take the oldest job's chunks to the last before it began with the next.
_CLAIM = text(f"""
    WITH turns AS MATERIALIZED (
        SELECT jobs.id,
            (SELECT count(*) FROM chunks WHERE chunks.job_id = jobs.id AND chunks.state = 'running'
                AND chunks.attempts > 0 AND chunks.lease_expires_at >= now()) AS in_work
        FROM jobs WHERE {_OPEN}
        ORDER BY jobs.priority DESC, in_work, random()
    ), next AS MATERIALIZED (
        SELECT found.id FROM turns CROSS JOIN LATERAL (
            SELECT chunks.id FROM chunks WHERE chunks.job_id = turns.id AND {_CLAIMABLE}
            ORDER BY chunks.id LIMIT 1 FOR UPDATE SKIP LOCKED
        ) AS found LIMIT 1
    )
    UPDATE chunks SET state = 'running', attempts = chunks.attempts + 1, lease_owner = :owner,
        lease_token = chunks.lease_token + 1, lease_expires_at = now() + make_interval(secs => :lease_s),
        next_run_at = NULL, fault = NULL
    FROM next, jobs, model_versions
    WHERE chunks.id = next.id AND jobs.id = chunks.job_id AND model_versions.id = jobs.model_version_id
    RETURNING chunks.id, chunks.job_id, chunks.lease_token, chunks.attempts, jobs.params, jobs.model_version_id,
        model_versions.number
""")  # noqa: S608 -- made of constants

_COUNT_CLAIMABLE = text(f"""
    SELECT count(*) FROM (
        SELECT FROM jobs CROSS JOIN LATERAL (
            SELECT FROM chunks WHERE chunks.job_id = jobs.id AND {_CLAIMABLE} LIMIT :most
        ) AS owed WHERE {_OPEN} LIMIT :most
    ) AS claimable
""")  # noqa: S608 -- made of constants


_is_of_unread_image = and_(
    QuarantinedImage.sha256.is_(None),
    QuarantinedImage.source_uri == JobItem.source_uri,
    QuarantinedImage.source_etag.is_not_distinct_from(JobItem.source_etag),
)


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
    is_quarantined: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimedChunk:
    """A chunk that this worker holds while its lease lasts. The token fences off a predecessor that wakes up late.

    It is suspect when it has one image, whose claim before this one ended in a fault. The list of quarantined contents
    is short by its nature: each of them has cost several workers.
    """

    chunk_id: int
    job_id: int
    token: int
    model_version: int
    model_version_id: int
    params: JobParams
    items: tuple[ClaimedItem, ...]
    is_suspect: bool = False
    quarantined_sha256s: frozenset[str] = frozenset()


def claim_next_chunk(
    *, database: Database, owner: str, lease_s: int, max_attempts: int, backoff: Backoff = BACKOFF
) -> ClaimedChunk | None:
    """Take the chunk whose turn it is.

    Jobs of a higher priority go first; among those of one priority the job with the fewest chunks in work, so that a
    job of ten images does not wait behind a million; within a job the oldest chunk, also one whose holder's lease has
    run out. Jobs that are paused, stopping or overdue are passed over, and so are chunks that rest after a fault.

    Args:
        database: where ownership is decided.
        owner: host and process, for people.
        lease_s: seconds until the chunk is owed again unless renewed; the database's clock counts.
        max_attempts: a chunk tried this often is left to the reconciler.
        backoff: how long a chunk rests after its holder fell silent.

    Returns:
        The chunk with its pending images, or None when nobody has anything left to claim. A doubled message ends here.
    """
    with database.transaction() as session:
        asked = {"owner": owner, "lease_s": lease_s, **_bounds(max_attempts, backoff)}
        claimed = session.execute(_CLAIM, asked).one_or_none()
        if claimed is None:
            return None
        items = session.execute(
            select(
                JobItem.id,
                JobItem.name,
                JobItem.source_uri,
                JobItem.source_etag,
                JobItem.label_uri,
                QuarantinedImage.id.is_not(None),
            )
            .outerjoin(QuarantinedImage, _is_of_unread_image)
            .where(JobItem.chunk_id == claimed.id, JobItem.state == ItemState.PENDING)
            .order_by(JobItem.id)
        ).all()
        quarantined = session.scalars(select(QuarantinedImage.sha256).where(QuarantinedImage.sha256.is_not(None))).all()
        return ClaimedChunk(
            chunk_id=claimed.id,
            job_id=claimed.job_id,
            token=claimed.lease_token,
            model_version=claimed.number,
            model_version_id=claimed.model_version_id,
            params=JobParams.from_json(claimed.params),
            items=tuple(
                ClaimedItem(
                    item_id=item_id,
                    name=name,
                    source_uri=uri,
                    source_etag=etag,
                    label_uri=label_uri,
                    is_quarantined=is_quarantined,
                )
                for item_id, name, uri, etag, label_uri, is_quarantined in items
            ),
            is_suspect=len(items) == 1 and claimed.attempts > 1,
            quarantined_sha256s=frozenset(filter(None, quarantined)),
        )


def count_claimable(*, database: Database, max_attempts: int, most: int, backoff: Backoff = BACKOFF) -> int:
    """Return how many chunks a worker could claim at this moment, counted up to ``most``."""
    with database.transaction() as session:
        return int(session.scalars(_COUNT_CLAIMABLE, {"most": most, **_bounds(max_attempts, backoff)}).one())


def _bounds(max_attempts: int, backoff: Backoff) -> dict[str, Any]:
    return {"attempts_before_split": ATTEMPTS_BEFORE_SPLIT, "max_attempts": max_attempts, **backoff.bound()}


def find_known_results(
    *, database: Database, chunk: ClaimedChunk, image_sha256s: Sequence[str]
) -> dict[str, KnownResult]:
    """Return the results that images have already under this chunk's model version and parameters.

    Args:
        database: where results are.
        chunk: as claimed.
        image_sha256s: content hashes of any number of images; one query for all.

    Returns:
        Content hash to result, for those that have one.
    """
    with database.transaction() as session:
        rows = session.execute(
            select(Image.sha256, Result.id, Result.mask_key)
            .join(Image, Image.id == Result.image_id)
            .where(
                Image.sha256 == func.any(list(image_sha256s)),
                Result.model_version_id == chunk.model_version_id,
                Result.params_sha256 == chunk.params.result_sha256,
                # Without its mask a result has to be made again.
                Result.deleted_at.is_(None),
            )
        )
        return {sha256: KnownResult(result_id=id_, mask_key=mask_key) for sha256, id_, mask_key in rows}
