"""Items and chunks as rows: the images of a job, cut into the slices that workers claim."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import text
from sqlalchemy.orm import Session

from defectoscope.database import Job, JobState, after_commit
from defectoscope.inspection.sources import SourceImage
from defectoscope.inspection.totals import change_counts
from defectoscope.queue import Queue, ring_for_chunks

# One statement with an array for each column: a row costs the client a few microseconds. Rows get their ids in the
# order of the arrays.
_ADD_CHUNKS = text("""
    INSERT INTO chunks (job_id, image_count)
    SELECT :job_id, image_count FROM unnest(CAST(:image_counts AS integer[])) AS rows (image_count)
    RETURNING id
""")
_ADD_ITEMS = text("""
    INSERT INTO job_items (job_id, chunk_id, state, name, source_uri, source_etag, label_uri,
        error_code, error_message, label_error_code, label_error_message)
    SELECT :job_id, chunk_id, CASE WHEN chunk_id IS NULL THEN 'failed' ELSE 'pending' END, name, source_uri,
        source_etag, label_uri, error_code, error_message, label_error_code, label_error_message
    FROM unnest(
        CAST(:chunk_ids AS bigint[]), CAST(:names AS text[]), CAST(:uris AS text[]), CAST(:etags AS text[]),
        CAST(:label_uris AS text[]), CAST(:codes AS text[]), CAST(:messages AS text[]), CAST(:label_codes AS text[]),
        CAST(:label_messages AS text[])
    ) AS rows (chunk_id, name, source_uri, source_etag, label_uri, error_code, error_message, label_error_code,
        label_error_message)
""")
_MOVE_ITEMS = text("""
    UPDATE job_items SET chunk_id = moved.chunk_id, state = 'pending', error_code = NULL, error_message = NULL
    FROM unnest(CAST(:item_ids AS bigint[]), CAST(:chunk_ids AS bigint[])) AS moved (item_id, chunk_id)
    WHERE job_items.id = moved.item_id
""")
#: Rows written by one statement.
_ROWS_AT_ONCE = 10_000


def add_images(session: Session, queue: Queue, job: Job, images: Sequence[SourceImage], *, chunk_size: int) -> None:
    """Write the items of some images, cut into chunks; a doorbell rings after the commit.

    Images that are known to be unusable become failed items and take no place in a chunk.
    """
    if not images:
        return
    usable = sum(image.error is None for image in images)
    chunk_ids = iter(open_chunks(session, queue, job.id, images=usable, chunk_size=chunk_size))
    placed = 0
    chunk_of: list[int | None] = []
    for image in images:
        if image.error is not None:
            chunk_of.append(None)
            continue
        if placed % chunk_size == 0:
            current = next(chunk_ids)
        placed += 1
        chunk_of.append(current)
    for start in range(0, len(images), _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        _write_items(session, job.id, images[part], chunk_of[part])
    change_counts(
        session,
        job.id,
        pending=usable,
        failed=len(images) - usable,
        label_errors=sum(image.label_error is not None for image in images),
    )
    job.state = JobState.RUNNING


def _write_items(session: Session, job_id: int, images: Sequence[SourceImage], chunk_ids: Sequence[int | None]) -> None:
    session.execute(
        _ADD_ITEMS,
        {
            "job_id": job_id,
            "chunk_ids": chunk_ids,
            "names": [image.name for image in images],
            "uris": [image.uri for image in images],
            "etags": [image.etag for image in images],
            "label_uris": [image.label_uri for image in images],
            "codes": [image.error and image.error.code for image in images],
            "messages": [image.error and image.error.message for image in images],
            "label_codes": [image.label_error and image.label_error.code for image in images],
            "label_messages": [image.label_error and image.label_error.message for image in images],
        },
    )


def open_chunks(session: Session, queue: Queue, job_id: int, *, images: int, chunk_size: int) -> list[int]:
    """Write the chunks for a number of images, all of them full but the last; a doorbell rings after the commit.

    Returns:
        Their ids, in ascending order.
    """
    full, rest = divmod(images, chunk_size)
    counts = [chunk_size] * full + [rest] * bool(rest)
    if not counts:
        return []
    ids = session.execute(_ADD_CHUNKS, {"job_id": job_id, "image_counts": counts}).scalars().all()
    after_commit(session, lambda: ring_for_chunks(queue, chunks=len(ids)))
    return sorted(ids)


def rechunk(session: Session, queue: Queue, job_id: int, item_ids: Sequence[int], *, chunk_size: int) -> None:
    """Put items into new chunks, pending and without an error."""
    chunk_ids = open_chunks(session, queue, job_id, images=len(item_ids), chunk_size=chunk_size)
    for start in range(0, len(item_ids), _ROWS_AT_ONCE):
        part = item_ids[start : start + _ROWS_AT_ONCE]
        places = [chunk_ids[number // chunk_size] for number in range(start, start + len(part))]
        session.execute(_MOVE_ITEMS, {"item_ids": part, "chunk_ids": places})
