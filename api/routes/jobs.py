"""Jobs: submit, watch, pause, prioritise, cancel, retry."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Path, Response

from api.access import AccessScope, Caller, ScopedRoute, requires
from api.pages import Cursor, Limit, cut, last_id
from api.schemas.base import LARGEST_INTEGER, Page
from api.schemas.jobs import ItemOut, JobIn, JobOut, JobSummaryOut, PriorityIn, priority_of
from api.services import Parts, Services
from api.submission import submit
from defectoscope.database import ItemState, JobState
from defectoscope.inspection.jobs import cancel_job, pause_job, prioritise_job, resume_job, retry_failed
from defectoscope.inspection.queries import check_job, list_items, list_jobs, view_job

router = APIRouter(prefix="/jobs", tags=["jobs"], route_class=ScopedRoute)

JobId = Annotated[int, Path(ge=1, le=LARGEST_INTEGER, examples=[12])]
IdempotencyKey = Annotated[
    str | None,
    Header(
        pattern=r"^[\x21-\x7e]{1,200}$",
        description="the same key of a token with the same request gives the same job; with another one, an error",
    ),
]


@router.post(
    "",
    status_code=201,
    responses={200: {"model": JobOut, "description": "The key was known: this is its job."}},
    **requires(AccessScope.OPERATOR),
)
def submit_a_job(
    services: Parts, caller: Caller, wanted: JobIn, response: Response, idempotency_key: IdempotencyKey = None
) -> JobOut:
    """Submit a batch of images."""
    job_id, is_new = submit(services, wanted, token_id=caller.token_id, idempotency_key=idempotency_key)
    response.status_code = 201 if is_new else 200
    return _show(services, job_id)


@router.get("", **requires(AccessScope.VIEWER))
def read_jobs(
    services: Parts, state: JobState | None = None, cursor: Cursor = None, limit: Limit = 50
) -> Page[JobSummaryOut]:
    """List jobs, newest first."""
    with services.database.transaction() as session:
        rows = list_jobs(session, before=last_id(cursor), limit=limit + 1, state=state)
    page, next_cursor = cut(rows, limit, lambda row: row[0].id)
    return Page(items=[JobSummaryOut.of(job, number) for job, number in page], next_cursor=next_cursor)


@router.get("/{job_id}", **requires(AccessScope.VIEWER))
def read_job(services: Parts, job_id: JobId) -> JobOut:
    """Show one job with everything counted."""
    return _show(services, job_id)


@router.post("/{job_id}/cancel", **requires(AccessScope.OPERATOR))
def cancel(services: Parts, job_id: JobId) -> JobOut:
    """Stop a job; images in work are finished."""
    cancel_job(database=services.database, job_id=job_id)
    return _show(services, job_id)


@router.post("/{job_id}/pause", **requires(AccessScope.OPERATOR))
def pause(services: Parts, job_id: JobId) -> JobOut:
    """Begin nothing more of a job until it is resumed; chunks in work are finished."""
    pause_job(database=services.database, job_id=job_id)
    return _show(services, job_id)


@router.post("/{job_id}/resume", **requires(AccessScope.OPERATOR))
def resume(services: Parts, job_id: JobId) -> JobOut:
    """Go on with a paused job."""
    resume_job(database=services.database, queue=services.queue, job_id=job_id)
    return _show(services, job_id)


@router.post("/{job_id}/priority", **requires(AccessScope.OPERATOR))
def prioritise(services: Parts, job_id: JobId, wanted: PriorityIn) -> JobOut:
    """Change which jobs a job goes before."""
    prioritise_job(database=services.database, job_id=job_id, priority=priority_of(wanted.priority))
    return _show(services, job_id)


@router.post("/{job_id}/retry", **requires(AccessScope.OPERATOR))
def retry(services: Parts, job_id: JobId) -> JobOut:
    """Try the failed images of an ended job again."""
    retry_failed(database=services.database, queue=services.queue, job_id=job_id, chunk_size=services.chunk_size)
    return _show(services, job_id)


@router.get("/{job_id}/items", **requires(AccessScope.VIEWER))
def read_items(
    services: Parts, job_id: JobId, state: ItemState | None = None, cursor: Cursor = None, limit: Limit = 100
) -> Page[ItemOut]:
    """List the images of a job in the order they were submitted."""
    with services.database.transaction() as session:
        check_job(session, job_id)
        rows = list_items(session, job_id, after=last_id(cursor) or 0, limit=limit + 1, state=state)
    page, next_cursor = cut(rows, limit, lambda view: view.item.id)
    return Page(items=[ItemOut.of(view) for view in page], next_cursor=next_cursor)


def _show(services: Services, job_id: int) -> JobOut:
    with services.database.transaction() as session:
        return JobOut.of_view(view_job(session, job_id))
