"""What the API shows to Prometheus: the time that requests take, and what the database alone knows of the work.

The second part is asked of PostgreSQL when Prometheus asks, over a connection of its own with a short timeout. Every
API process gives the same answer; a dashboard takes the greatest, not the sum.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram
from sqlalchemy.orm import Session

from defectoscope.inspection.backlog import COUNTED_CHUNKS, COUNTED_JOBS, read_backlog
from defectoscope.metrics import Family, Reading
from defectoscope.objects import sum_collections
from defectoscope.registry import champion_or_none
from defectoscope.training.progress import count_unfinished_runs
from defectoscope.webhooks.delivering import Outcome
from defectoscope.webhooks.outbox import read_outbox

#: What this process counts itself.
REGISTRY: Final = CollectorRegistry()

#: The route of a request that no route takes.
NO_ROUTE = "none"
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_REQUEST_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

request_seconds: Final = Histogram(
    "defectoscope_http_request_seconds",
    "Time from the first byte of a request to the last of its answer.",
    ["method", "route", "status"],
    buckets=_REQUEST_BUCKETS_S,
    registry=REGISTRY,
)

webhook_attempts_total: Final = Counter(
    "defectoscope_webhook_attempts_total",
    "Attempts to deliver an event to a webhook, by outcome; lost: the lease ran out, so that it is sent again.",
    ["outcome"],
    registry=REGISTRY,
)
for _outcome in Outcome:
    webhook_attempts_total.labels(_outcome.value)

IMAGES = Family(
    name="defectoscope_queue_images",
    meaning="Images of unfinished jobs without an outcome, by whether their job is paused (owed or paused).",
    labels=("state",),
)
CHUNKS = Family(
    name="defectoscope_queue_chunks",
    meaning=f"Chunks that wait (pending, counted up to {COUNTED_CHUNKS}) or are held by a worker (running).",
    labels=("state",),
)
QUEUE_AGE = Family(
    name="defectoscope_queue_age_seconds",
    meaning="Time since the oldest chunk that nobody holds was made, paused jobs aside; 0 when none waits.",
)
UNFINISHED_JOBS = Family(
    name="defectoscope_jobs_unfinished", meaning="Jobs that have not ended, by state.", labels=("state",)
)
ENDED_JOBS = Family(
    name="defectoscope_jobs_ended_of_last_day",
    meaning=f"Jobs of the last 24 hours, {COUNTED_JOBS} at most, that have ended, by state.",
    labels=("state",),
)
UNFINISHED_RUNS = Family(
    name="defectoscope_training_runs_unfinished",
    meaning="Training runs that have not ended, by state; told here, since a run may wait for a trainer.",
    labels=("state",),
)
CHAMPION = Family(
    name="defectoscope_champion_version", meaning="Number of the model version in service; 0 before the first one."
)
WEBHOOK_DELIVERIES = Family(
    name="defectoscope_webhook_deliveries",
    meaning="Deliveries to webhooks that are owed (pending) or were given up (dead); disabled webhooks aside.",
    labels=("state",),
)
WEBHOOK_AGE = Family(
    name="defectoscope_webhook_oldest_pending_seconds",
    meaning="Time since the oldest event that is owed to a webhook happened, disabled webhooks aside; 0 when none is.",
)
COLLECTED_OBJECTS = Family(
    name="defectoscope_collected_objects_total",
    meaning="Stored objects that nothing referred to and that were deleted.",
    kind="counter",
)
COLLECTED_BYTES = Family(
    name="defectoscope_collected_bytes_total",
    meaning="Size of the stored objects that nothing referred to and that were deleted.",
    kind="counter",
)
LAST_COLLECTION = Family(
    name="defectoscope_last_collection_timestamp_seconds",
    meaning="When the bucket was last searched to its end, seconds since 1970; absent before the first time.",
)
FAMILIES = (
    *(IMAGES, CHUNKS, QUEUE_AGE, UNFINISHED_JOBS, ENDED_JOBS, UNFINISHED_RUNS, CHAMPION),
    *(WEBHOOK_DELIVERIES, WEBHOOK_AGE),
    *(COLLECTED_OBJECTS, COLLECTED_BYTES, LAST_COLLECTION),
)


def observe_request(*, method: str, route: str | None, status: int, seconds: float) -> None:
    """Count a request that has ended.

    Args:
        method: as it was sent; unknown ones are counted as one, so that nobody can make series at will.
        route: template of the path, such as ``/v1/jobs/{job_id}``; None where no route took it.
        status: of the answer; 0 when none was begun.
        seconds: from its first byte to the last of its answer.
    """
    request_seconds.labels(method if method in _METHODS else "other", route or NO_ROUTE, str(status)).observe(seconds)


def read_figures(session: Session) -> Iterator[Reading]:
    """Yield what the database knows of the work."""
    backlog = read_backlog(session)
    yield IMAGES, ("owed",), backlog.images
    yield IMAGES, ("paused",), backlog.paused_images
    for state, count in backlog.chunks.items():
        yield CHUNKS, (state.value,), count
    yield QUEUE_AGE, (), backlog.oldest_owed_s
    for job_state, count in backlog.unfinished_jobs.items():
        yield UNFINISHED_JOBS, (job_state.value,), count
    for job_state, count in backlog.ended_jobs.items():
        yield ENDED_JOBS, (job_state.value,), count
    for run_state, count in count_unfinished_runs(session).items():
        yield UNFINISHED_RUNS, (run_state.value,), count
    champion = champion_or_none(session)
    yield CHAMPION, (), champion.number if champion else 0
    outbox = read_outbox(session)
    yield WEBHOOK_DELIVERIES, ("pending",), outbox.pending
    yield WEBHOOK_DELIVERIES, ("dead",), outbox.dead
    yield WEBHOOK_AGE, (), outbox.oldest_pending_s
    collected = sum_collections(session)
    yield COLLECTED_OBJECTS, (), collected.objects
    yield COLLECTED_BYTES, (), collected.bytes
    if collected.last_finished_s is not None:
        yield LAST_COLLECTION, (), collected.last_finished_s
