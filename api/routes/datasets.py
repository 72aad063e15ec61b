"""Dataset revisions."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Response

from api.access import AccessScope, requires
from api.pages import Cursor, Limit, cut, last_id
from api.schemas.base import Page
from api.schemas.datasets import DatasetIn, DatasetOut, DatasetReference
from api.services import Parts
from defectoscope.dataset import create_revision, find_revision
from defectoscope.dataset.queries import list_revisions

router = APIRouter(prefix="/datasets", tags=["datasets"])


@router.post(
    "",
    status_code=201,
    responses={200: {"model": DatasetOut, "description": "The set is unchanged: this is the revision it is."}},
    **requires(AccessScope.TRAINER),
)
def create(services: Parts, wanted: DatasetIn, response: Response) -> DatasetOut:
    """Make a revision of a dataset."""
    with services.database.transaction() as session:
        latest = list_revisions(session, name=wanted.name, limit=1)
    revision = create_revision(
        database=services.database, storage=services.storage, name=wanted.name, entries=wanted.to_entries()
    )
    response.status_code = 200 if latest and revision.number <= latest[0].number else 201
    return DatasetOut.of(revision)


@router.get("", **requires(AccessScope.VIEWER))
def read_datasets(services: Parts, cursor: Cursor = None, limit: Limit = 50) -> Page[DatasetOut]:
    """List revisions of all datasets, newest first."""
    with services.database.transaction() as session:
        rows = list_revisions(session, before=last_id(cursor), limit=limit + 1)
    page, next_cursor = cut(rows, limit, lambda revision: revision.id)
    return Page(items=[DatasetOut.of(revision) for revision in page], next_cursor=next_cursor)


@router.get("/{reference}", **requires(AccessScope.VIEWER))
def read_dataset(
    services: Parts, reference: Annotated[DatasetReference, Path(description="name or name@number", examples=["steel"])]
) -> DatasetOut:
    """Show one revision; a name alone means its latest."""
    with services.database.transaction() as session:
        return DatasetOut.of(find_revision(session, reference))
