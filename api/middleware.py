"""What happens around every request: its id, its time, its line in the log, the last resort for errors, a limit."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final
from uuid import uuid4

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.error_handlers import respond, respond_to
from api.metrics import observe_request
from defectoscope.access.store import Principal
from defectoscope.access.tokens import TOKEN_PATTERN
from defectoscope.errors.api import RequestTooLarge
from defectoscope.errors.installation import Unexpected

log = structlog.get_logger(__name__)

_PLAIN_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

#: Of every answer, unless a route says it more strictly: nothing that we send is a page, runs, is framed or is kept.
#: HSTS is the matter of the proxy that speaks TLS for us.
_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; sandbox",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class RequestContext:
    """Gives every request an id, logs how it ended, and answers when nobody else did.

    A caller's own ``X-Request-Id`` is kept when it is short and plain. Outermost of our middleware: whatever is
    raised below ends here, so that an answer always has the id under which the log has the trace.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        # Ids are written down; somebody who mixes up two headers must not find his token in the log.
        is_usable = _PLAIN_ID.fullmatch(given) and not TOKEN_PATTERN.search(given)
        request_id = given if is_usable else uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = request_id
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        began_s = time.perf_counter()
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self._app(scope, receive, send_with_id)
            except Exception:  # The border of the process: everything is logged, nothing is hidden.
                log.exception("http.unexpected", method=scope["method"], path=scope["path"])
                if status:
                    # Half of an answer is out; cutting the connection is the only way left to say so.
                    raise
                error = Unexpected()
                answer = respond(status=500, code=error.code, message=error.message, request_id=request_id)
                await answer(scope, receive, send_with_id)
            finally:
                seconds = time.perf_counter() - began_s
                observe_request(method=scope["method"], route=_route_of(scope), status=status, seconds=seconds)
                # Reading changes nothing and is done all the time, by probes and by whoever watches a job.
                is_routine = scope["method"] in {"GET", "HEAD"} and status < HTTPStatus.BAD_REQUEST
                log.log(
                    logging.DEBUG if is_routine else logging.INFO,
                    "http.request",
                    method=scope["method"],
                    path=scope["path"],
                    status=status,
                    ms=round(seconds * 1000, 1),
                    **_token_of(scope),
                )


def _token_of(scope: Scope) -> dict[str, int]:
    """Return the id of the token that a request came with, for the log."""
    principal: Principal | None = scope["state"].get("principal")
    return {} if principal is None or principal.token_id is None else {"token_id": principal.token_id}


def _route_of(scope: Scope) -> str | None:
    """Return the template of the path that a request has, or None where no route took it.

    A route of an included router knows itself without the prefix. The whole is in the framework's own note; older
    versions make none and give the whole to the route.
    """
    whole = scope.get("fastapi", {}).get("effective_route_context")
    path: str | None = getattr(whole or scope.get("route"), "path", None)
    return path


class BodyLimit:
    """Refuses bodies above a limit: at once when the length is announced, else while they stream in.

    Args:
        app: what is guarded.
        limit_bytes: for every path that has no limit of its own.
        limit_bytes_of: path to its own limit.
    """

    def __init__(self, app: ASGIApp, *, limit_bytes: int, limit_bytes_of: Mapping[str, int]) -> None:
        self._app = app
        self._limit_bytes = limit_bytes
        self._limit_bytes_of = limit_bytes_of

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._limit_bytes_of.get(scope["path"], self._limit_bytes)
        message = f"The request body is larger than {limit} bytes."
        announced = Headers(scope=scope).get("content-length", "")
        if announced.isdecimal() and int(announced) > limit:
            error = RequestTooLarge(message, max_bytes=limit)
            await respond_to(error, request_id=scope["state"]["request_id"])(scope, receive, send)
            return
        received = 0

        async def receive_within_limit() -> Message:
            nonlocal received
            part = await receive()
            received += len(part.get("body", b""))
            if received > limit:
                # The one kind of exception that the framework lets through while it reads a body.
                raise HTTPException(413, message)
            return part

        await self._app(scope, receive_within_limit, send)
