"""Jobs of a benchmark, worked on by worker processes: submit one, ring as beat does, and watch it to its end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic, perf_counter, sleep

from benchmarks.place import Place, job_params
from defectoscope.connect import open_database, open_queue
from defectoscope.database import Database, Job, JobState
from defectoscope.events import list_events
from defectoscope.inspection.sources import ExplicitImages, Prefix, SourceImage
from defectoscope.inspection.submission import JobRequest, submit_job
from defectoscope.queue import Message
from defectoscope.queue.messages import CONTROL_QUEUE, RECONCILE
from defectoscope.storage import S3Uri

_LOOK_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a job has come: seconds since it was submitted, and images that have a result."""

    seconds: float
    images: int


def images_of(place: Place, keys: Sequence[str]) -> ExplicitImages:
    """Return the images under some keys of our bucket as the source of a job."""
    bucket = place.settings.storage.bucket
    return ExplicitImages(
        images=tuple(
            SourceImage(name=f"{number:06}.jpg", uri=str(S3Uri(bucket, key))) for number, key in enumerate(keys)
        )
    )


def prefix_of(place: Place, prefix: str) -> Prefix:
    """Return everything below a prefix of our bucket as the source of a job; a worker will list it."""
    return Prefix(uri=str(S3Uri(place.settings.storage.bucket, prefix)), labels_uri=None)


def wait_until_warm(database: Database, *, workers: int, within_s: float) -> None:
    """Wait until so many worker processes have said that they loaded the model in service and ran it.

    Raises:
        RuntimeError: they did not.
    """
    deadline = monotonic() + within_s
    while True:
        with database.transaction() as session:
            events = list_events(session, kind="worker.switched")
            warm = {str(event.details["worker"]) for event in events}
        if len(warm) >= workers:
            return
        if monotonic() > deadline:
            raise RuntimeError(f"{len(warm)} of {workers} workers were warm within {within_s:.0f} s.")
        sleep(_LOOK_S)


def run_job(
    place: Place,
    *,
    source: ExplicitImages | Prefix,
    version_id: int,
    threshold: float,
    within_s: float,
    on_progress: Callable[[Progress], None] = lambda _: None,
    look_every_s: float = _LOOK_S,
) -> float:
    """Submit a job in a database without others, and watch it.

    Args:
        place: where workers run.
        source: its images.
        version_id: row id of the model version.
        threshold: probability from which a pixel is a defect.
        within_s: it must have ended after this time.
        on_progress: called at every look.
        look_every_s: between two looks.

    Returns:
        Seconds from the submission to its end.

    Raises:
        RuntimeError: it did not end in time, or not every image succeeded.
    """
    settings = place.settings
    database = open_database(settings)
    queue = open_queue(settings, name="bench")
    request = JobRequest(source=source, params=job_params(threshold=threshold), model_version_id=version_id)
    began_at = perf_counter()
    job_id = submit_job(database=database, queue=queue, request=request, chunk_size=settings.inspection.chunk_size)
    rung_at = began_at
    while True:
        now = perf_counter()
        with database.transaction() as session:
            job = session.get_one(Job, job_id)
            state, done = job.state, job.succeeded_images
        on_progress(Progress(seconds=now - began_at, images=done))
        if state.is_final:
            break
        if now - began_at > within_s:
            raise RuntimeError(f"The job had {done} results after {within_s:.0f} s.")
        if now - rung_at > settings.inspection.reconcile_interval_s:
            queue.send([Message(RECONCILE, CONTROL_QUEUE)])
            rung_at = now
        sleep(look_every_s)
    database.close()
    if state is not JobState.SUCCEEDED:
        raise RuntimeError(f"The job ended as {state.value}.")
    return now - began_at
