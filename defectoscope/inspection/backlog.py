"""How much inspection is owed and how long it waits: a few figures for monitoring. Read only, and bounded in cost.

Nothing here looks at items, and nothing counts to the end of a table: with millions of images waiting, an answer must
still cost milliseconds, because it is asked for every few seconds and most of all when much is waiting.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from defectoscope.database import Chunk, ChunkState, Job, JobState

#: Waiting chunks are counted so far: beyond it the exact number helps nobody.
COUNTED_CHUNKS = 10_000
#: Ended jobs are counted among so many of the newest.
COUNTED_JOBS = 10_000
#: The oldest waiting chunk is looked for among so many of the oldest unfinished jobs.
_LOOKED_AT_JOBS = 1000

# Written out rather than bound: only then is it certain that the partial indexes are used, whatever plan is kept.
_WAITING = text("chunks.state = 'pending'")
_RUNNING = text("chunks.state = 'running' AND chunks.attempts > 0")
_UNFINISHED = text("jobs.state IN ('pending', 'running')")


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """What is owed.

    Attributes:
        images: images of unfinished jobs without an outcome; of paused ones they are in `paused_images` instead.
        paused_images: see `images`.
        chunks: by state, `pending` (counted up to `COUNTED_CHUNKS`) and `running`.
        oldest_owed_s: seconds since the oldest chunk that nobody holds was made, of jobs that are not paused; 0.0 when
            none waits.
        unfinished_jobs: by state.
        ended_jobs: by state, of the newest `COUNTED_JOBS` jobs submitted within the last 24 hours.
    """

    images: int
    paused_images: int
    chunks: dict[ChunkState, int]
    oldest_owed_s: float
    unfinished_jobs: dict[JobState, int]
    ended_jobs: dict[JobState, int]


def read_backlog(session: Session) -> Backlog:
    """Return what is owed now, every state among it that can be, also those with nothing in them."""
    is_paused = Job.paused_at.is_not(None)
    images: dict[bool, int] = dict(
        session.execute(select(is_paused, func.sum(Job.pending_images)).where(_UNFINISHED).group_by(is_paused)).all()
    )
    waiting = select(Chunk.id).where(_WAITING).order_by(Chunk.job_id, Chunk.id).limit(COUNTED_CHUNKS).subquery()
    unfinished: dict[JobState, int] = dict(
        session.execute(select(Job.state, func.count()).where(_UNFINISHED).group_by(Job.state)).all()
    )
    last_day = Job.created_at > func.now() - text("interval '24 hours'")
    recent = select(Job.state).where(last_day).order_by(Job.created_at.desc()).limit(COUNTED_JOBS).subquery()
    of_last_day: dict[JobState, int] = dict(
        session.execute(select(recent.c.state, func.count()).group_by(recent.c.state)).all()
    )
    return Backlog(
        images=int(images.get(False, 0)),
        paused_images=int(images.get(True, 0)),
        chunks={
            ChunkState.PENDING: session.scalar(select(func.count()).select_from(waiting)) or 0,
            ChunkState.RUNNING: session.scalar(select(func.count(Chunk.id)).where(_RUNNING)) or 0,
        },
        oldest_owed_s=_oldest_owed_s(session),
        unfinished_jobs={state: unfinished.get(state, 0) for state in JobState if not state.is_final},
        ended_jobs={state: of_last_day.get(state, 0) for state in JobState if state.is_final},
    )


def _oldest_owed_s(session: Session) -> float:
    """Return the age of the oldest waiting chunk: the first of each job is found by index, and there are few jobs."""
    jobs = select(Job.id).where(_UNFINISHED, Job.paused_at.is_(None)).order_by(Job.id).limit(_LOOKED_AT_JOBS).subquery()
    # Not "of this job": the order would then be that of the primary key as well, and for a job of which nothing waits
    # any more the table would be read to its end. So the index of what is owed alone will do.
    first = (
        select(Chunk.job_id, Chunk.created_at)
        .where(_WAITING, Chunk.job_id >= jobs.c.id)
        .order_by(Chunk.job_id, Chunk.id)
        .limit(1)
        .lateral("first")
    )
    age_s = func.extract("epoch", func.now() - func.min(first.c.created_at))
    return float(session.scalar(select(age_s).select_from(jobs).join(first, first.c.job_id == jobs.c.id)) or 0.0)
