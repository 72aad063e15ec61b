"""Items and chunks as rows: the images of a job, cut into the slices that workers claim."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import func, insert, select
from sqlalchemy.orm import Session

from defectoscope.database import Chunk, ItemState, Job, JobItem, JobState, after_commit
from defectoscope.inspection.sources import SourceImage
from defectoscope.queue import Queue, messages, send_or_leave


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
