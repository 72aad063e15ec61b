"""Enumeration: turns the source of a job into items and chunks, page by page, resumable after a kill."""

from __future__ import annotations

from contextlib import closing

from sqlalchemy import func, select, update
from sqlalchemy.exc import IntegrityError

from defectoscope.database import Database, Job, JobItem
from defectoscope.errors import CallerError, Fault
from defectoscope.inspection.archives import ArchiveLimits, list_archive
from defectoscope.inspection.items import add_images
from defectoscope.inspection.jobs import end_enumeration, fail_enumeration
from defectoscope.inspection.listing import list_prefix
from defectoscope.inspection.manifests import list_manifest, repeated_name
from defectoscope.inspection.sources import Archive, InputBuckets, Manifest, Page, Pages, Prefix
from defectoscope.inspection.submission import read_source
from defectoscope.objects import confirm_stored, own_key
from defectoscope.queue import Queue


def enumerate_job(
    *,
    database: Database,
    queue: Queue,
    buckets: InputBuckets,
    limits: ArchiveLimits,
    max_manifest_bytes: int,
    job_id: int,
    chunk_size: int,
) -> None:
    """Write the items of a job whose images are not all known; nothing to do when they are.

    Each page is one transaction that moves the cursor from where this call saw it. A second enumeration of the same
    job finds the cursor elsewhere and stops, so a doubled message costs a listing and nothing more. Chunks start
    before the enumeration ends.

    Raises:
        StorageUnavailable, DatabaseUnavailable: try again later; what was recorded stays.
    """
    with database.transaction() as session:
        job = session.get(Job, job_id)
        if job is None or job.enumerated_at is not None:
            return
        source, cursor = read_source(job), job.enumeration_cursor
    try:
        with closing(
            _list(source, buckets=buckets, limits=limits, max_manifest_bytes=max_manifest_bytes, after=cursor)
        ) as pages:
            for page in pages:
                if not _record_page(database, queue, buckets, job_id, page, seen_cursor=cursor, chunk_size=chunk_size):
                    return
                cursor = page.cursor
    except (CallerError, Fault) as exc:
        # Trying again would end the same way, so the job ends with it. A server that is away is another matter.
        fail_enumeration(database=database, job_id=job_id, error=exc)


def _list(
    source: Prefix | Archive | Manifest,
    *,
    buckets: InputBuckets,
    limits: ArchiveLimits,
    max_manifest_bytes: int,
    after: str | None,
) -> Pages:
    match source:
        case Prefix():
            return list_prefix(source, buckets=buckets, after=after)
        case Archive():
            return list_archive(source, buckets=buckets, limits=limits, after=after)
        case Manifest():
            return list_manifest(source, buckets=buckets, max_bytes=max_manifest_bytes, after=after)


def touch_enumeration(*, database: Database, job_id: int) -> None:
    """Say that a job is being enumerated at this moment, so that the reconciler does not ring for a second worker.

    Fetching a large archive takes longer than the reconciler waits, and each worker that it calls would fetch it anew.
    """
    with database.transaction() as session:
        session.execute(
            update(Job)
            .where(Job.id == job_id, Job.enumerated_at.is_(None))
            .values(dispatched_at=func.now())
            .execution_options(synchronize_session=False)
        )


def _record_page(
    database: Database,
    queue: Queue,
    buckets: InputBuckets,
    job_id: int,
    page: Page,
    *,
    seen_cursor: str | None,
    chunk_size: int,
) -> bool:
    try:
        return _write_page(database, queue, buckets, job_id, page, seen_cursor=seen_cursor, chunk_size=chunk_size)
    except IntegrityError:
        # Nothing but a manifest can name an image twice, and within a page that is noticed where it is read.
        with database.transaction() as session:
            names = [image.name for image in page.images]
            named = select(JobItem.name).where(JobItem.job_id == job_id, JobItem.name == func.any(names))
            known = set(session.scalars(named))
        for image, line in zip(page.images, page.lines, strict=False):
            if image.name in known:
                raise repeated_name(image.name, line=line) from None
        raise


def _write_page(
    database: Database,
    queue: Queue,
    buckets: InputBuckets,
    job_id: int,
    page: Page,
    *,
    seen_cursor: str | None,
    chunk_size: int,
) -> bool:
    with database.transaction() as session:
        job = session.scalar(
            select(Job)
            .where(
                Job.id == job_id,
                Job.enumerated_at.is_(None),
                Job.enumeration_cursor.is_not_distinct_from(seen_cursor),
            )
            .with_for_update()
        )
        if job is None:
            return False
        add_images(session, queue, job, page.images, chunk_size=chunk_size)
        if page.cursor is None:
            end_enumeration(session, job)
        else:
            job.enumeration_cursor = page.cursor
            job.dispatched_at = session.scalar(select(func.now()))
        # Members of archives were stored a moment ago; what lies elsewhere is not ours to keep.
        uris = [uri for image in page.images for uri in (image.uri, image.label_uri) if uri]
        keys = [key for uri in uris if (key := own_key(uri, bucket=buckets.own_name)) is not None]
        confirm_stored(session, buckets.own, keys)
        return True
