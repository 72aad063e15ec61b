"""Who may call: the one place where access is decided.

There are no accounts and no tokens yet. What stands in for them: the API answers loopback only unless the settings say
otherwise, and it refuses what a page of another site makes a browser send. Every route declares the scope that a token
will need; enforcing it is a change of `requires` and of nothing else.
"""

from __future__ import annotations

import ipaddress
from enum import StrEnum
from typing import Any, TypedDict
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from api.error_handlers import respond_to
from defectoscope.errors import AccessDenied, CrossSiteRequest, HostNotAllowed, SettingMissing

#: Key of an OpenAPI operation that names the scope its caller needs.
SCOPE_KEY = "x-required-scope"

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_OWN_SITE = frozenset({"same-origin", "none"})


class AccessScope(StrEnum):
    """What a caller may do, from least to most; each includes those before it."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    TRAINER = "trainer"
    ADMIN = "admin"


class _Declaration(TypedDict):
    openapi_extra: dict[str, Any]


def requires(scope: AccessScope) -> _Declaration:
    """Declare the scope that a route needs: `@router.get("/jobs", **requires(AccessScope.VIEWER))`."""
    return {"openapi_extra": {SCOPE_KEY: scope.value}}


def is_loopback(host: str) -> bool:
    """Return whether a host name or address reaches this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_listening(host: str, *, allow_remote: bool) -> None:
    """Refuse to listen where other machines can reach an API without access control.

    Raises:
        SettingMissing: the host is not loopback and remote access is not allowed.
    """
    if not allow_remote and not is_loopback(host):
        raise SettingMissing(
            f"DEFECTOSCOPE_API__HOST is {host}, which other machines can reach, and there is no access control yet. "
            "Set DEFECTOSCOPE_API__ALLOW_REMOTE=true if the network keeps strangers out."
        )


class AccessGuard:
    """Refuses requests for a foreign host name (DNS rebinding) and those of foreign pages (CSRF).

    Args:
        app: what is guarded.
        allow_remote: answer under any host name.
    """

    def __init__(self, app: ASGIApp, *, allow_remote: bool) -> None:
        self._app = app
        self._allow_remote = allow_remote

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        error = self._objection(scope["method"], Headers(scope=scope))
        if error is not None:
            await respond_to(error, request_id=scope["state"]["request_id"])(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _objection(self, method: str, headers: Headers) -> AccessDenied | None:
        host = headers.get("host", "")
        if not self._allow_remote and not is_loopback(_name_of(host)):
            return HostNotAllowed()
        if method in _SAFE_METHODS:
            return None
        # Browsers set these two and pages cannot; programs send neither.
        site, origin = headers.get("sec-fetch-site"), headers.get("origin")
        if site is not None:
            return None if site in _OWN_SITE else CrossSiteRequest()
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            return CrossSiteRequest()
        return None


def _name_of(host: str) -> str:
    """Return the host of a Host header, without port and brackets; empty when it is none."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
