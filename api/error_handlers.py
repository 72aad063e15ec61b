"""Turns errors into answers: the one table from error branch to status, and the one shape of every error body.

::

    {"error": {"code": "job_not_found", "message": "There is no job 7.", "details": {"job_id": 7}, "request_id": "..."}}
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import ceil
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from defectoscope.errors import AccessDenied, CallerError, Conflict, DefectoscopeError, Fault, NotFound, NotNow
from defectoscope.errors.access import NotAuthenticated
from defectoscope.errors.api import InvalidRequest, RequestTooLarge, TooManyRequests
from defectoscope.errors.retention import DeletedByRetention
from defectoscope.logs import without_secrets

log = structlog.get_logger(__name__)

#: The first branch an error belongs to decides.
STATUS_OF_BRANCH: tuple[tuple[type[DefectoscopeError], int], ...] = (
    (RequestTooLarge, 413),
    (TooManyRequests, 429),
    (NotAuthenticated, 401),
    (AccessDenied, 403),
    (DeletedByRetention, 410),
    (NotFound, 404),
    (Conflict, 409),
    (CallerError, 422),
    (NotNow, 503),
    (Fault, 500),
    (DefectoscopeError, 500),
)

#: After so many seconds a server that was away may be back.
RETRY_AFTER_S = 5

#: Fields named in one answer; a list of thousands of images may have a problem in each.
_MOST_FIELDS = 20

#: Codes of the answers that the framework gives by itself.
_CODE_OF_STATUS = {404: "not_found", 405: "method_not_allowed"}
_MESSAGE_OF_STATUS = {
    404: "There is nothing at this address.",
    405: "This address does not take this method.",
}


def status_of(error: type[DefectoscopeError]) -> int:
    """Return the HTTP status of a class of errors."""
    return next(status for branch, status in STATUS_OF_BRANCH if issubclass(error, branch))


def respond(
    *,
    status: int,
    code: str,
    message: str,
    request_id: str,
    details: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """Return an error answer."""
    body = {"code": code, "message": message, "details": dict(details or {}), "request_id": request_id}
    # Errors repeat names and paths that were sent; a token that was sent in the wrong place is not one of them.
    body = json.loads(without_secrets(json.dumps(body)))
    return JSONResponse({"error": body}, status_code=status, headers=dict(headers or {}))


def respond_to(error: DefectoscopeError, *, request_id: str) -> JSONResponse:
    """Return the answer to one of our errors; what is not the caller's doing is logged."""
    status = status_of(type(error))
    if isinstance(error, NotNow):
        log.warning("http.not_now", code=error.code, reason=error.message)
    elif isinstance(error, Fault):
        log.error("http.fault", code=error.code, reason=error.message, exc_info=error)
    return respond(
        status=status,
        code=error.code,
        message=error.message,
        details=error.details,
        request_id=request_id,
        headers=_headers_of(error),
    )


def _headers_of(error: DefectoscopeError) -> Mapping[str, str]:
    """Return what HTTP wants to be said beside an error."""
    if isinstance(error, NotNow):
        return {"Retry-After": str(RETRY_AFTER_S)}
    if isinstance(error, TooManyRequests):
        return {"Retry-After": str(max(1, ceil(error.details.get("retry_after_s", 1))))}
    if isinstance(error, NotAuthenticated):
        return {"WWW-Authenticate": 'Bearer realm="defectoscope"'}
    return {}


def install_error_handlers(app: FastAPI) -> None:
    """Give every error that leaves a route the one shape. Unexpected ones are `RequestContext`'s."""
    app.add_exception_handler(DefectoscopeError, _on_our_error)
    app.add_exception_handler(RequestValidationError, _on_invalid_request)
    app.add_exception_handler(HTTPException, _on_http_exception)


async def _on_our_error(request: Request, exc: Exception) -> JSONResponse:
    assert isinstance(exc, DefectoscopeError)  # noqa: S101 -- registered for this class
    return respond_to(exc, request_id=request.state.request_id)


async def _on_invalid_request(request: Request, exc: Exception) -> JSONResponse:
    assert isinstance(exc, RequestValidationError)  # noqa: S101 -- registered for this class
    problems = exc.errors()
    fields = [
        # Where it stands without "body" or "query"; what was sent is not repeated.
        {"field": ".".join(str(part) for part in problem["loc"][1:]) or "body", "problem": problem["msg"]}
        for problem in problems[:_MOST_FIELDS]
    ]
    first = f"{fields[0]['field']}: {fields[0]['problem']}"
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    error = InvalidRequest(f"The request is not valid: {first}{more}.", fields=fields)
    return respond_to(error, request_id=request.state.request_id)


async def _on_http_exception(request: Request, exc: Exception) -> JSONResponse:
    assert isinstance(exc, HTTPException)  # noqa: S101 -- registered for this class
    request_id = request.state.request_id
    if exc.status_code == status_of(RequestTooLarge):
        return respond_to(RequestTooLarge(exc.detail), request_id=request_id)
    if exc.status_code not in _CODE_OF_STATUS:
        # The framework says 400 to a body it cannot take apart.
        return respond_to(InvalidRequest(f"The request is not valid: {exc.detail}."), request_id=request_id)
    return respond(
        status=exc.status_code,
        code=_CODE_OF_STATUS[exc.status_code],
        message=_MESSAGE_OF_STATUS[exc.status_code],
        details={"path": request.url.path, "method": request.method},
        request_id=request_id,
        headers=exc.headers,
    )
