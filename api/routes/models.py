"""Model versions: how they did, what was decided about them, and the decisions themselves."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query
from pydantic import AwareDatetime

from api.access import AccessScope, Caller, ScopedRoute, actor_of, requires
from api.pages import Cursor, Limit, cut, last_id
from api.schemas.base import LARGEST_INTEGER, Page
from api.schemas.datasets import DatasetReference
from api.schemas.decisions import ComparisonOut, DecisionIn, HistoryOut, RetirementIn, RollbackIn
from api.schemas.models import ModelDetailsOut, ModelFileOut, ModelOut
from api.services import Parts, Services
from defectoscope.dataset import find_revision
from defectoscope.errors.models import ScoresNotComparable
from defectoscope.registry import (
    ANY,
    champion_or_none,
    compare,
    find_file,
    history,
    promote,
    retire,
    rollback,
)
from defectoscope.registry.ledger import ExpectedChampion
from defectoscope.registry.queries import list_models, view_model

router = APIRouter(prefix="/models", tags=["models"], route_class=ScopedRoute)

Number = Annotated[int, Path(ge=1, le=LARGEST_INTEGER, examples=[3])]
NumberAsked = Annotated[int, Query(ge=1, le=LARGEST_INTEGER, examples=[3])]

#: A download must begin within this time.
_FILE_EXPIRES_IN_S = 3600


@router.get("", **requires(AccessScope.VIEWER))
def read_models(services: Parts, cursor: Cursor = None, limit: Limit = 50) -> Page[ModelOut]:
    """List model versions, newest first."""
    with services.database.transaction() as session:
        rows = list_models(session, before=last_id(cursor), limit=limit + 1)
    page, next_cursor = cut(rows, limit, lambda view: view.version.number)
    return Page(items=[ModelOut.of(view) for view in page], next_cursor=next_cursor)


@router.get("/compare", **requires(AccessScope.VIEWER))
def read_comparison(
    services: Parts,
    a: NumberAsked,
    b: NumberAsked,
    dataset: Annotated[
        DatasetReference | None, Query(description="revision to compare on; left out: the latest both were scored on")
    ] = None,
) -> ComparisonOut:
    """Compare two versions image by image; b is what would replace a."""
    with services.database.transaction() as session:
        revision_id = None if dataset is None else find_revision(session, dataset).id
        return ComparisonOut.of(compare(session, a, b, revision_id=revision_id, rules=services.gate_rules))


@router.get("/history", **requires(AccessScope.VIEWER))
def read_history(
    services: Parts,
    as_of: Annotated[
        AwareDatetime | None,
        Query(description="ISO 8601 with a time zone; left out: now", examples=["2026-11-23T02:00:00+05:00"]),
    ] = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> HistoryOut:
    """Show the ledger up to a moment, newest line first, and what was in service at that moment."""
    with services.database.transaction() as session:
        found = history(session, as_of=as_of, before=last_id(cursor), limit=limit + 1)
    page, next_cursor = cut(found.lines, limit, lambda line: line.id)
    return HistoryOut.of(as_of, found.in_service, page, next_cursor)


@router.post("/rollback", **requires(AccessScope.TRAINER))
def roll_back(services: Parts, caller: Caller, wanted: RollbackIn) -> ModelDetailsOut:
    """Put the version before the champion back into service; asked again, the one before that."""
    line = rollback(
        database=services.database,
        actor=actor_of(caller, wanted.actor),
        reason=wanted.reason,
        to=wanted.to,
        expected_champion=wanted.to_expected(),
    )
    return _show(services, line.number)


@router.get("/{number}", **requires(AccessScope.VIEWER))
def read_model(services: Parts, number: Number) -> ModelDetailsOut:
    """Show one model version."""
    return _show(services, number)


@router.get("/{number}/files/{precision}", **requires(AccessScope.VIEWER))
def read_file(services: Parts, number: Number, precision: Literal["fp32", "fp16", "int8"]) -> ModelFileOut:
    """Say where a file of a version can be had."""
    with services.database.transaction() as session:
        variant = find_file(session, number, precision)
    file_name = f"model-{number}-{precision}.onnx"
    return ModelFileOut(
        url=services.signer.presign_get(str(variant.key), expires_in_s=_FILE_EXPIRES_IN_S, download_name=file_name),
        expires_in_s=_FILE_EXPIRES_IN_S,
        file_name=file_name,
        size_bytes=variant.size_bytes,
        sha256=variant.sha256,
    )


@router.post("/{number}/promote", **requires(AccessScope.ADMIN))
def promote_by_hand(services: Parts, caller: Caller, number: Number, wanted: DecisionIn) -> ModelDetailsOut:
    """Put a version into service, whatever the gate says; what it says is written into the ledger."""
    figures, champion = _gate_figures(services, number)
    expected = wanted.to_expected()
    promote(
        database=services.database,
        number=number,
        actor=actor_of(caller, wanted.actor),
        reason=wanted.reason,
        figures=figures,
        # The figures are about this champion, so the decision is too.
        expected_champion=champion if expected is ANY else expected,
    )
    return _show(services, number)


@router.post("/{number}/retire", **requires(AccessScope.ADMIN))
def retire_by_hand(services: Parts, caller: Caller, number: Number, wanted: RetirementIn) -> ModelDetailsOut:
    """Retire a version for ever; its files may go, its record stays."""
    retire(
        database=services.database,
        storage=services.storage,
        number=number,
        actor=actor_of(caller, wanted.actor),
        reason=wanted.reason,
        drop_weights=wanted.drop_weights,
    )
    return _show(services, number)


def _gate_figures(services: Services, number: int) -> tuple[dict[str, Any], ExpectedChampion]:
    """Return what the gate says of a version, for the ledger, and the champion that it was compared with."""
    with services.database.transaction() as session:
        champion = champion_or_none(session)
        if champion is None:
            return {"by_hand": True}, None
        if champion.number == number:
            return {}, champion.number
        try:
            decision = compare(session, champion.number, number, rules=services.gate_rules).decision
        except ScoresNotComparable as exc:
            return {"by_hand": True, "not_compared": exc.message}, champion.number
        figures = {"by_hand": True, "is_new_best": decision.is_new_best, "gate": decision.to_json()}
        return figures, champion.number


def _show(services: Services, number: int) -> ModelDetailsOut:
    with services.database.transaction() as session:
        return ModelDetailsOut.of_details(view_model(session, number))
