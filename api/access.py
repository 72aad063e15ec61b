"""Who may call: the one place where access is decided.

Every route declares the scope that its caller's token needs (`requires`) and is a `ScopedRoute`, which asks for the
token before anything of the body is read. `check_routes` refuses an application with a route that is neither scoped nor
named in `OPEN_PATHS`. Before all that, `AccessGuard` turns away what a page of another site makes a browser send.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Coroutine, Iterable
from typing import Annotated, Any, Final, TypedDict
from urllib.parse import urlsplit

import structlog
from fastapi import Depends, Request, Response
from fastapi.routing import APIRoute, RouteContext
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from api.auditing import audited
from api.error_handlers import respond_to
from api.gatekeeper import Gatekeeper
from defectoscope.access.store import Principal
from defectoscope.database import AccessScope
from defectoscope.errors import DefectoscopeError
from defectoscope.errors.access import ScopeTooSmall
from defectoscope.errors.api import CrossSiteRequest, HostNotAllowed
from defectoscope.errors.installation import SettingMissing
from defectoscope.errors.storage import DiskFull
from defectoscope.storage import is_disk_full

__all__ = ["AccessScope", "ScopedRoute", "requires"]

#: Key of an OpenAPI operation that names the scope its caller needs.
SCOPE_KEY: Final = "x-required-scope"
#: Name of the security scheme of the OpenAPI document.
SCHEME: Final = "token"

#: What orchestrators ask without a token. It says nothing but whether we live and can work.
OPEN_PATHS: Final = frozenset({"/healthz", "/readyz"})

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_OWN_SITE = frozenset({"same-origin", "none"})


class _Declaration(TypedDict):
    openapi_extra: dict[str, Any]


def requires(scope: AccessScope) -> _Declaration:
    """Declare the scope that a route needs: `@router.get("/jobs", **requires(AccessScope.VIEWER))`."""
    return {"openapi_extra": {SCOPE_KEY: scope.value, "security": [{SCHEME: []}]}}


class ScopedRoute(APIRoute):
    """A route that is answered to whoever has a token of the scope it declares, and to nobody else.

    A request that may change something gets a line in the audit log, also when it is refused for its scope.
    """

    @property
    def scope(self) -> AccessScope:
        """The scope that a caller needs.

        Raises:
            LookupError: the route declares none.
        """
        declared = (self.openapi_extra or {}).get(SCOPE_KEY)
        if declared is None:
            raise LookupError(f"{self.path} declares no scope; add **requires(AccessScope....)")
        return AccessScope(declared)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return what handles a request: the framework's own handler, behind the checks."""
        needed = self.scope
        handle = super().get_route_handler()

        async def handle_if_allowed(request: Request) -> Response:
            gatekeeper: Gatekeeper = request.app.state.gatekeeper
            principal = await gatekeeper.admit(request)
            request.state.principal = principal

            async def handle_in_scope(request: Request) -> Response:
                _check_scope(principal, needed)
                try:
                    return await handle(request)
                except HTTPException as exc:
                    # Large bodies are kept in a file. Whatever happens there is the caller's doing to the framework.
                    if is_disk_full(exc.__cause__):
                        raise DiskFull from exc
                    raise

            with structlog.contextvars.bound_contextvars(token_id=principal.token_id):
                if request.method in _SAFE_METHODS:
                    return await handle_in_scope(request)
                return await audited(request, principal, route=_template_of(request), handle=handle_in_scope)

        return handle_if_allowed


def _check_scope(principal: Principal, needed: AccessScope) -> None:
    if not principal.scope.includes(needed):
        raise ScopeTooSmall(
            f"This needs an API token of the scope {needed}; this one has the scope {principal.scope}.",
            needed=needed.value,
            given=principal.scope.value,
        )


def _template_of(request: Request) -> str:
    """Return the whole template of a request's path; a route of an included router knows itself without the prefix."""
    whole = request.scope.get("fastapi", {}).get("effective_route_context")
    return str((whole or request.scope["route"]).path)


def _principal_of(request: Request) -> Principal:
    principal: Principal = request.state.principal
    return principal


#: How a route asks who calls.
Caller = Annotated[Principal, Depends(_principal_of)]


def actor_of(caller: Principal, said: str | None) -> str:
    """Return whom the ledger names: the token, and for whom its holder says to act, if that is somebody else."""
    if caller.token_id is None:
        return said or caller.name
    return caller.name if said in {None, caller.name} else f"{caller.name} for {said}"


def check_routes(routes: Iterable[RouteContext]) -> None:
    """Refuse routes that anybody could call.

    Args:
        routes: with their whole paths.

    Raises:
        LookupError: one is neither scoped nor open by name.
    """
    for route in routes:
        if not isinstance(route.original_route, ScopedRoute) and route.path not in OPEN_PATHS:
            raise LookupError(f"{route.path} would be open to everybody; give its router route_class=ScopedRoute")


def is_loopback(host: str) -> bool:
    """Return whether a host name or address reaches this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_listening(host: str, *, allow_remote: bool, require_token: bool) -> None:
    """Refuse to listen where other machines can reach us without being asked to, or without access control.

    Raises:
        SettingMissing: the host is not loopback and remote access is not allowed, or needs no token.
    """
    if allow_remote and not require_token:
        raise SettingMissing(
            "DEFECTOSCOPE_API__ALLOW_REMOTE lets other machines in, and with DEFECTOSCOPE_API__REQUIRE_TOKEN=false "
            "they could do everything; change one of the two."
        )
    if not allow_remote and not is_loopback(host):
        raise SettingMissing(
            f"DEFECTOSCOPE_API__HOST is {host}, which other machines can reach; "
            "set DEFECTOSCOPE_API__ALLOW_REMOTE=true if they shall."
        )


class AccessGuard:
    """Refuses requests for a foreign host name (DNS rebinding), those of foreign pages (CSRF), and too many at once.

    Args:
        app: what is guarded.
        allow_remote: answer under any host name.
        gatekeeper: counts requests.
    """

    def __init__(self, app: ASGIApp, *, allow_remote: bool, gatekeeper: Gatekeeper) -> None:
        self._app = app
        self._allow_remote = allow_remote
        self._gatekeeper = gatekeeper

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        error = self._objection(scope)
        if error is not None:
            await respond_to(error, request_id=scope["state"]["request_id"])(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _objection(self, scope: Scope) -> DefectoscopeError | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if not self._allow_remote and not is_loopback(_name_of(host)):
            return HostNotAllowed()
        if scope["method"] not in _SAFE_METHODS and _is_of_another_site(headers, host):
            return CrossSiteRequest()
        # Probes are not counted: an orchestrator must not end us because others ask too much.
        if scope["path"] in OPEN_PATHS:
            return None
        client = scope.get("client")
        return self._gatekeeper.count(client[0] if client else "unknown")


def _is_of_another_site(headers: Headers, host: str) -> bool:
    # Browsers set these two and pages cannot; programs send neither.
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is not None:
        return site not in _OWN_SITE
    return origin is not None and urlsplit(origin).netloc.lower() != host.lower()


def _name_of(host: str) -> str:
    """Return the host of a Host header, without port and brackets; empty when it is none."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
