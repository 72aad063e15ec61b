"""Submission: a job is recorded with its images, or with the place where a worker will list them."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from defectoscope.database import Database, Job, Priority, after_commit
from defectoscope.errors.api import IdempotencyConflict, InvalidRequest
from defectoscope.errors.jobs import NoImagesFound
from defectoscope.inspection.items import add_images
from defectoscope.inspection.jobs import check_model_files, end_enumeration
from defectoscope.inspection.params import JobParams
from defectoscope.inspection.sources import (
    MAX_NAME_BYTES,
    Archive,
    ExplicitImages,
    Manifest,
    Prefix,
    Source,
    SourceImage,
    is_item_name,
)
from defectoscope.queue import Queue, messages, send_or_leave


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRequest:
    """What somebody wants inspected, with defaults already resolved."""

    source: Source
    params: JobParams
    model_version_id: int
    name: str | None = None
    #: Token of whoever asks; None where none is needed. A key is known to its token alone.
    token_id: int | None = None
    idempotency_key: str | None = None
    priority: Priority = Priority.NORMAL
    #: Seconds from the submission on after which what is not done fails.
    deadline_s: float | None = None
    #: Share of failed images, 0 to 1, beyond which the job stops by itself.
    max_failed_share: float | None = None

    @property
    def sha256(self) -> str:
        """Hash that tells a repeated request from a different one under the same idempotency key."""
        described: dict[str, Any] = {
            "source": describe_source(self.source),
            "params": self.params.to_json(),
            "name": self.name,
        }
        # Left out where they are not asked for: what was hashed before jobs had them keeps its hash.
        bounds = {"deadline_s": self.deadline_s, "max_failed_share": self.max_failed_share}
        described |= {name: value for name, value in bounds.items() if value is not None}
        if isinstance(self.source, ExplicitImages):
            described["images"] = [
                # An etag only where there is one: requests without have the hash they always had.
                [image.name, image.uri, image.label_uri, *([image.etag] if image.etag else [])]
                for image in self.source.images
            ]
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
        case Manifest(uri=uri):
            return {"kind": "manifest", "uri": uri}


def read_source(job: Job) -> Prefix | Archive | Manifest:
    """Return the source of a job that is enumerated by a worker."""
    if job.source["kind"] == "archive":
        return Archive(uri=job.source["uri"])
    if job.source["kind"] == "manifest":
        return Manifest(uri=job.source["uri"])
    return Prefix(uri=job.source["uri"], labels_uri=job.source["labels_uri"])


def submit_job(*, database: Database, queue: Queue, request: JobRequest, chunk_size: int) -> int:
    """Record a job and ring for a worker. A token's same idempotency key with the same request gives the same job.

    Returns:
        The job's id.

    Raises:
        NoImagesFound: an explicit list is empty.
        InvalidRequest: two images of a list have one name, or a name is empty, too long or holds a null character.
        IdempotencyConflict: the token used the key for a different request.
        ModelWeightsDropped: the files of the model version are gone.
    """
    if isinstance(request.source, ExplicitImages):
        _check_names(request.source.images)
    if request.idempotency_key is not None and (known := _known_job(database, request)) is not None:
        return known
    try:
        with database.transaction() as session:
            return _record_job(session, queue, request, chunk_size)
    except IntegrityError:
        # Two requests of one token with one key at the same moment: the other one was first.
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
        job = session.scalar(
            select(Job).where(Job.token_id == request.token_id, Job.idempotency_key == request.idempotency_key)
        )
        if job is None:
            return None
        if job.request_sha256 != request.sha256:
            raise IdempotencyConflict(job_id=job.id)
        return job.id


def _record_job(session: Session, queue: Queue, request: JobRequest, chunk_size: int) -> int:
    check_model_files(session, request.model_version_id)
    job = Job(
        name=request.name,
        source=describe_source(request.source),
        params=request.params.to_json(),
        model_version_id=request.model_version_id,
        token_id=request.token_id,
        idempotency_key=request.idempotency_key,
        request_sha256=request.sha256,
        priority=request.priority,
        max_failed_share=request.max_failed_share,
        deadline_at=None if request.deadline_s is None else func.now() + timedelta(seconds=request.deadline_s),
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
