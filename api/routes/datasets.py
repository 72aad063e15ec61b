"""Dataset revisions."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Response

from api.access import AccessScope, ScopedRoute, requires
from api.pages import Cursor, Limit, cut, last_id
from api.schemas.base import Page
from api.schemas.datasets import CreatedDatasetOut, DatasetIn, DatasetItemOut, DatasetOut, DatasetReference
from api.services import Parts
from defectoscope.dataset import create_revision, find_revision
from defectoscope.dataset.queries import list_items, list_revisions

router = APIRouter(prefix="/datasets", tags=["datasets"], route_class=ScopedRoute)

Reference = Annotated[DatasetReference, Path(description="name or name@number", examples=["steel"])]


@router.post(
    "",
    status_code=201,
    responses={200: {"model": CreatedDatasetOut, "description": "The set is unchanged: this is the revision it is."}},
    **requires(AccessScope.TRAINER),
)
def create(services: Parts, wanted: DatasetIn, response: Response) -> CreatedDatasetOut:
    """Make a revision of a dataset. The server decides on the sides of the split and tells where it had to differ."""
    created = create_revision(
        database=services.database,
        storage=services.storage,
        name=wanted.name,
        entries=wanted.to_entries(),
        extends=wanted.extends,
        val_fraction=wanted.val_fraction,
    )
    response.status_code = 201 if created.is_new else 200
    return CreatedDatasetOut.of_created(created)


@router.get("", **requires(AccessScope.VIEWER))
def read_datasets(services: Parts, cursor: Cursor = None, limit: Limit = 50) -> Page[DatasetOut]:
    """List revisions of all datasets, newest first."""
    with services.database.transaction() as session:
        rows = list_revisions(session, before=last_id(cursor), limit=limit + 1)
    page, next_cursor = cut(rows, limit, lambda revision: revision.id)
    return Page(items=[DatasetOut.of(revision) for revision in page], next_cursor=next_cursor)


@router.get("/{reference}", **requires(AccessScope.VIEWER))
def read_dataset(services: Parts, reference: Reference) -> DatasetOut:
    """Show one revision; a name alone means its latest."""
    with services.database.transaction() as session:
        return DatasetOut.of(find_revision(session, reference))


@router.get("/{reference}/items", **requires(AccessScope.VIEWER))
def read_items(services: Parts, reference: Reference, cursor: Cursor = None, limit: Limit = 50) -> Page[DatasetItemOut]:
    """List the labelled images of a revision, with addresses of both files."""
    with services.database.transaction() as session:
        revision = find_revision(session, reference)
        rows = list_items(session, revision.id, after=last_id(cursor) or 0, limit=limit + 1)
    page, next_cursor = cut(rows, limit, lambda item: item.image.image_id)
    return Page(items=[DatasetItemOut.of(item, services) for item in page], next_cursor=next_cursor)
