"""Writes a line of the audit log around every request that asks for a change."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Final

import structlog
from fastapi import Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from api.error_handlers import status_of
from api.gatekeeper import address_of
from defectoscope.access.audit import begin_entry, end_entry
from defectoscope.access.store import Principal
from defectoscope.database import Database
from defectoscope.errors import DefectoscopeError
from defectoscope.errors.api import InvalidRequest
from defectoscope.errors.installation import DatabaseUnavailable, Unexpected
from defectoscope.logs import without_secrets

log = structlog.get_logger(__name__)

#: What the body of an answer calls the thing it shows, in the order in which to look.
_NAMES: Final = ("reference", "number", "id")
#: A larger answer is a list, and names no single thing.
_LONGEST_BODY: Final = 2**20

Handler = Callable[[Request], Awaitable[Response]]


async def audited(request: Request, principal: Principal, *, route: str, handle: Handler) -> Response:
    """Handle a request between the line that says it was asked for and the outcome of that line.

    Args:
        request: what is asked.
        principal: who asks.
        route: template of the path, such as ``/v1/jobs/{job_id}/cancel``.
        handle: does it.

    Raises:
        DatabaseUnavailable: the line cannot be written; nothing was done.
    """
    database: Database = request.app.state.services.database
    noun = route.split("/")[2]
    known = next((_printable(str(value)) for value in request.path_params.values()), None)
    entry_id = await run_in_threadpool(
        _begin,
        database,
        principal,
        action=f"{request.method} {route}",
        subject=None if known is None else f"{noun}/{known}",
        request_id=request.state.request_id,
        address=address_of(request),
    )
    outcome: tuple[int, str | None] = (500, Unexpected.code)
    made: str | None = None
    try:
        response = await handle(request)
        outcome = (response.status_code, None)
        if known is None:
            made = _made_by(response, noun)
    except DefectoscopeError as exc:
        outcome = (status_of(type(exc)), exc.code)
        raise
    except RequestValidationError:
        outcome = (status_of(InvalidRequest), InvalidRequest.code)
        raise
    except HTTPException as exc:
        outcome = (exc.status_code, InvalidRequest.code)
        raise
    else:
        return response
    finally:
        await _note_outcome(database, entry_id, outcome, made)


async def _note_outcome(database: Database, entry_id: int, outcome: tuple[int, str | None], made: str | None) -> None:
    try:
        await run_in_threadpool(_end, database, entry_id, outcome, made)
    except DatabaseUnavailable as exc:
        # What was asked for has been done or refused, and the answer has to say so. The line stays without outcome.
        log.warning("audit.outcome_not_written", entry=entry_id, status=outcome[0], reason=exc.message)


def _begin(
    database: Database, principal: Principal, *, action: str, subject: str | None, request_id: str, address: str
) -> int:
    with database.transaction() as session:
        return begin_entry(
            session, principal=principal, action=action, subject=subject, request_id=request_id, address=address
        )


def _end(database: Database, entry_id: int, outcome: tuple[int, str | None], made: str | None) -> None:
    status, code = outcome
    with database.transaction() as session:
        end_entry(session, entry_id, status=status, error_code=code, subject=made)


def _printable(text: str) -> str:
    """Return text that may be kept: what stands in a path is not checked yet, and may be NUL or a token."""
    return without_secrets("".join(letter if letter.isprintable() else "?" for letter in text))


def _made_by(response: Response, noun: str) -> str | None:
    """Return what an answer shows, such as ``jobs/12``; None where it shows no single thing."""
    if response.media_type != "application/json" or len(response.body) > _LONGEST_BODY:
        return None
    shown = json.loads(bytes(response.body))
    name = next((shown[name] for name in _NAMES if name in shown), None) if isinstance(shown, dict) else None
    return None if name is None else f"{noun}/{name}"
