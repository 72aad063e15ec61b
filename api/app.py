"""Puts the API together: routes, error handlers, middleware, and the parts they work with."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import structlog
from anyio import to_thread
from fastapi import APIRouter, FastAPI
from fastapi.routing import iter_route_contexts

from api import version
from api.access import SCHEME, AccessGuard, check_listening, check_routes
from api.error_handlers import install_error_handlers
from api.gatekeeper import Gatekeeper
from api.middleware import BodyLimit, RequestContext
from api.routes import (
    audit,
    datasets,
    defects,
    document,
    events,
    health,
    holds,
    images,
    jobs,
    labels,
    model_imports,
    models,
    nights,
    quarantine,
    results,
    retention,
    tokens,
    training_runs,
    uploads,
    webhooks,
)
from api.schemas.errors import ErrorOut
from api.services import Services, open_services
from defectoscope.errors import DefectoscopeError
from defectoscope.settings import Settings

log = structlog.get_logger(__name__)

#: Largest JSON body: a job of 250 000 images named one by one.
MAX_JSON_BYTES = 128 * 2**20

_NOUNS = (
    uploads,
    images,
    quarantine,
    jobs,
    results,
    defects,
    labels,
    datasets,
    training_runs,
    nights,
    models,
    model_imports,
    events,
    webhooks,
    retention,
    holds,
    tokens,
    audit,
)


def create_app(settings: Settings) -> FastAPI:
    """Return the application; connections are made when it starts and closed when it ends.

    Args:
        settings: of this process.

    Raises:
        SettingMissing: it would listen where other machines can reach it, and nobody has allowed that, or without
            access control.
    """
    check_listening(settings.api.host, allow_remote=settings.api.allow_remote, require_token=settings.api.require_token)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        services = open_services(settings)
        app.state.services = services
        if not settings.api.require_token:
            log.warning("access.open", consequence="everybody on this machine may do everything")
        await to_thread.run_sync(_ensure_bucket, services)
        services.courier.start()
        try:
            yield
        finally:
            services.close()

    app = _Application(
        title="Defectoscope",
        summary="Turns a bucket of industrial images into defect records.",
        version=version(),
        lifespan=lifespan,
        # The pages of both load their scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
        # A route of our own, so that it needs a token as all others do.
        openapi_url=None,
        redirect_slashes=False,
        separate_input_output_schemas=False,
        responses={"default": {"model": ErrorOut, "description": "Every error has this body."}},
    )
    app.state.gatekeeper = gatekeeper = Gatekeeper(settings.api)
    _include_routes(app)
    check_routes(iter_route_contexts(app.routes))
    install_error_handlers(app)
    # Added last, called first.
    app.add_middleware(
        BodyLimit, limit_bytes=MAX_JSON_BYTES, limit_bytes_of={images.UPLOAD_PATH: settings.api.max_upload_bytes}
    )
    app.add_middleware(AccessGuard, allow_remote=settings.api.allow_remote, gatekeeper=gatekeeper)
    app.add_middleware(RequestContext)
    return app


class _Application(FastAPI):
    """The framework's application with an OpenAPI document that says how to send a token."""

    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI document, made once."""
        document = super().openapi()
        document.setdefault("components", {})["securitySchemes"] = {
            SCHEME: {"type": "http", "scheme": "bearer", "description": "An API token, `dsk_…`."}
        }
        return document


def _include_routes(app: FastAPI) -> None:
    app.include_router(health.router)
    app.include_router(document.router)
    v1 = APIRouter(prefix="/v1")
    for noun in _NOUNS:
        v1.include_router(noun.router)
    app.include_router(v1)


def _ensure_bucket(services: Services) -> None:
    """Make our bucket if it can be done now; a server that is away must not keep the API from starting."""
    try:
        services.buckets.ensure(services.bucket)
    except DefectoscopeError as exc:
        log.warning("storage.bucket_not_ensured", reason=exc.message, consequence="/readyz tries again")
