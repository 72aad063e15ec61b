"""The OpenAPI document: what others program against."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from api.access import AccessScope, ScopedRoute, requires

router = APIRouter(route_class=ScopedRoute)


@router.get("/openapi.json", include_in_schema=False, response_class=Response, **requires(AccessScope.VIEWER))
def read_document(request: Request) -> Response:
    """Send the OpenAPI document."""
    return JSONResponse(request.app.openapi())
