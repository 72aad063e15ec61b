"""Training runs: ask for one, watch them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path

from api.access import AccessScope, requires
from api.pages import Cursor, Limit, cut, last_id
from api.schemas.base import LARGEST_INTEGER, Page
from api.schemas.training_runs import TrainingRunIn, TrainingRunOut
from api.services import Parts
from defectoscope.dataset import find_revision
from defectoscope.training import request_training
from defectoscope.training.queries import list_runs, view_run

router = APIRouter(prefix="/training-runs", tags=["training runs"])


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
def read_training_run(
    services: Parts, run_id: Annotated[int, Path(ge=1, le=LARGEST_INTEGER, examples=[6])]
) -> TrainingRunOut:
    """Show one training run with the figures of every epoch."""
    with services.database.transaction() as session:
        return TrainingRunOut.of(view_run(session, run_id))
