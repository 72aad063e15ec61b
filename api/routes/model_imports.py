"""Imports of foreign model files."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path

from api.access import AccessScope, Caller, ScopedRoute, actor_of, requires
from api.pages import Cursor, Limit, cut, last_id
from api.schemas.base import LARGEST_INTEGER, Page
from api.schemas.model_imports import ModelImportIn, ModelImportOut
from api.services import Parts, Services
from defectoscope.dataset import find_revision
from defectoscope.errors.models import ModelTooLarge
from defectoscope.errors.storage import ObjectNotFound
from defectoscope.registry import request_import
from defectoscope.registry.imports import list_imports, view_import
from defectoscope.storage import content_key

router = APIRouter(prefix="/model-imports", tags=["models"], route_class=ScopedRoute)

ImportId = Annotated[int, Path(ge=1, le=LARGEST_INTEGER, examples=[2])]


@router.post("", status_code=201, **requires(AccessScope.ADMIN))
def request(services: Parts, caller: Caller, wanted: ModelImportIn) -> ModelImportOut:
    """Ask for a stored model file to be imported."""
    key = content_key(wanted.sha256)
    _check_file(services, key, wanted.file_name)
    options = wanted.options.model_dump(mode="json", exclude_none=True)
    with services.database.transaction() as session:
        if wanted.options.dataset is not None:
            # Pinned now: which revision a name means may change before the trainer comes to it.
            revision = find_revision(session, wanted.options.dataset)
            options["dataset"] = f"{revision.name}@{revision.number}"
        import_id = request_import(
            session,
            services.queue,
            key=key,
            sha256=wanted.sha256,
            file_name=wanted.file_name,
            options=options,
            actor=actor_of(caller, wanted.actor),
        )
        return ModelImportOut.of(view_import(session, import_id))


@router.get("", **requires(AccessScope.VIEWER))
def read_imports(services: Parts, cursor: Cursor = None, limit: Limit = 50) -> Page[ModelImportOut]:
    """List imports, newest first."""
    with services.database.transaction() as session:
        rows = list_imports(session, before=last_id(cursor), limit=limit + 1)
    page, next_cursor = cut(rows, limit, lambda view: view.row.id)
    return Page(items=[ModelImportOut.of(view) for view in page], next_cursor=next_cursor)


@router.get("/{import_id}", **requires(AccessScope.VIEWER))
def read_import(services: Parts, import_id: ImportId) -> ModelImportOut:
    """Show one import: its version, or why the file was refused."""
    with services.database.transaction() as session:
        return ModelImportOut.of(view_import(session, import_id))


def _check_file(services: Services, key: str, file_name: str) -> None:
    """Find out now what would otherwise be seen when the import has failed."""
    try:
        size_bytes = services.storage.head(key).size_bytes
    except ObjectNotFound as exc:
        raise ObjectNotFound(f"{file_name} is not stored yet; send it with POST /v1/uploads first.", key=key) from exc
    if size_bytes > services.max_model_bytes:
        raise ModelTooLarge(
            f"{file_name} has {size_bytes} bytes; at most {services.max_model_bytes} are taken as a model.",
            size_bytes=size_bytes,
            max_bytes=services.max_model_bytes,
        )
