"""Training runs: ask for one, watch them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Response

from api.access import AccessScope, ScopedRoute, requires
from api.downloads import attach
from api.pages import Cursor, Limit, cut, last_id
from api.schemas.base import LARGEST_INTEGER, Page
from api.schemas.training_runs import TrainingRunIn, TrainingRunOut
from api.services import Parts
from defectoscope.dataset import find_revision
from defectoscope.errors.training import ReportNotFound
from defectoscope.training import cancel_run, request_training
from defectoscope.training.queries import list_runs, view_run

router = APIRouter(prefix="/training-runs", tags=["training runs"], route_class=ScopedRoute)

RunId = Annotated[int, Path(ge=1, le=LARGEST_INTEGER, examples=[6])]


@router.post("", status_code=201, **requires(AccessScope.TRAINER))
def request(services: Parts, wanted: TrainingRunIn) -> TrainingRunOut:
    """Ask for a training on a dataset revision."""
    with services.database.transaction() as session:
        revision = find_revision(session, wanted.dataset)
        run_id = request_training(
            session=session,
            queue=services.queue,
            dataset_revision_id=revision.id,
            config=dict(wanted.config),
        )
        return TrainingRunOut.of(view_run(session, run_id))


@router.get("", **requires(AccessScope.VIEWER))
def read_training_runs(services: Parts, cursor: Cursor = None, limit: Limit = 50) -> Page[TrainingRunOut]:
    """List training runs, newest first."""
    with services.database.transaction() as session:
        rows = list_runs(session, before=last_id(cursor), limit=limit + 1)
    page, next_cursor = cut(rows, limit, lambda view: view.run.id)
    return Page(items=[TrainingRunOut.of(view) for view in page], next_cursor=next_cursor)


@router.get("/{run_id}", **requires(AccessScope.VIEWER))
def read_training_run(services: Parts, run_id: RunId) -> TrainingRunOut:
    """Show one training run with the figures of every epoch."""
    with services.database.transaction() as session:
        return TrainingRunOut.of(view_run(session, run_id))


@router.post("/{run_id}/cancel", **requires(AccessScope.TRAINER))
def cancel(services: Parts, run_id: RunId) -> TrainingRunOut:
    """End a run that is wanted no more."""
    with services.database.transaction() as session:
        cancel_run(session, run_id)
    with services.database.transaction() as session:
        return TrainingRunOut.of(view_run(session, run_id))


@router.get(
    "/{run_id}/report",
    response_class=Response,
    responses={200: {"content": {"text/html": {}}, "description": "A page with curves and validation overlays."}},
    **requires(AccessScope.VIEWER),
)
def read_report(services: Parts, run_id: RunId) -> Response:
    """Download the page with the curves and the validation overlays of a run."""
    with services.database.transaction() as session:
        key = view_run(session, run_id).run.report_key
    if key is None:
        raise ReportNotFound(f"Training run {run_id} has no report yet.", run_id=run_id)
    return attach(services, key, media_type="text/html; charset=utf-8", file_name=f"training-run-{run_id}.html")
