"""Labels brought in with their images."""

from __future__ import annotations

from fastapi import APIRouter

from api.access import AccessScope, ScopedRoute, requires
from api.registration import register_labels
from api.schemas.labels import LabelOut, LabelsIn, LabelsOut
from api.services import Parts

router = APIRouter(prefix="/labels", tags=["labels"], route_class=ScopedRoute)


@router.post("", **requires(AccessScope.TRAINER))
def register(services: Parts, wanted: LabelsIn) -> LabelsOut:
    """Fetch, check and register labelled images. A pair that cannot be used does not hold up the others."""
    outcomes = register_labels(services, [entry.to_pair() for entry in wanted.entries], source=wanted.source)
    return LabelsOut(items=[LabelOut.of(outcome) for outcome in outcomes])
