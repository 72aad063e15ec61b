"""Every route of the application needs a token of a scope; what is open is named here, one by one."""

from __future__ import annotations

import pytest
from fastapi import APIRouter, FastAPI
from fastapi.routing import iter_route_contexts

from api.access import OPEN_PATHS, AccessScope, ScopedRoute, check_routes, requires
from api.app import create_app
from defectoscope.settings import Settings

#: Found without their framework: what the router of the application would try, in order.
ROUTES = [
    (f"{method} {route.path}", route.original_route)
    for route in iter_route_contexts(create_app(Settings(_env_file=None)).routes)
    for method in sorted(route.methods or {"ANY"})
]


def test_only_the_two_probes_are_open():
    open_to_all = {name for name, route in ROUTES if not isinstance(route, ScopedRoute)}

    assert open_to_all == {"GET /healthz", "GET /readyz"}
    assert {"GET /healthz", "GET /readyz"} == {f"GET {path}" for path in OPEN_PATHS}


def test_the_walk_sees_every_route():
    names = {name for name, _ in ROUTES}

    assert len(names) > 45
    assert {"GET /v1/jobs", "POST /v1/jobs/{job_id}/cancel", "GET /openapi.json", "GET /v1/audit"} <= names


@pytest.mark.parametrize(
    ("name", "route"), [pytest.param(*row, id=row[0]) for row in ROUTES if row[0].split(" ")[1] not in OPEN_PATHS]
)
def test_a_route_declares_a_scope_and_a_request_without_a_token_is_refused(client, name, route):
    method, path = name.split(" ")

    answer = client.request(method, path, json={})

    assert route.scope in set(AccessScope)
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "token_missing")
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")


def test_an_application_with_a_route_open_to_everybody_does_not_start():
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    router = APIRouter(prefix="/v1")

    @router.get("/secrets")
    def read_secrets():
        return {}

    app.include_router(router)

    with pytest.raises(LookupError, match="/v1/secrets would be open to everybody"):
        check_routes(iter_route_contexts(app.routes))


def test_a_scoped_route_without_a_scope_cannot_be_made():
    router = APIRouter(route_class=ScopedRoute)

    with pytest.raises(LookupError, match="declares no scope"):

        @router.get("/secrets")
        def read_secrets():
            return {}


@pytest.mark.parametrize("mine", list(AccessScope))
@pytest.mark.parametrize("needed", list(AccessScope))
def test_a_scope_includes_those_before_it(mine, needed):
    order = ["viewer", "operator", "trainer", "admin"]

    assert mine.includes(needed) == (order.index(mine) >= order.index(needed))


def test_a_declared_scope_is_in_the_document():
    assert requires(AccessScope.TRAINER)["openapi_extra"]["x-required-scope"] == "trainer"
