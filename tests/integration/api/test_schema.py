"""Requests drawn from the whole OpenAPI document: whatever is sent, no fault of ours, and nothing beyond a scope."""

from __future__ import annotations

from itertools import cycle

import pytest
import requests
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from sqlalchemy import text

from api.access import OPEN_PATHS, SCOPE_KEY
from api.app import create_app
from api.schemas.errors import ErrorOut
from defectoscope.database import AccessScope
from defectoscope.settings import Settings
from tests.integration.api.conftest import BASE_URL
from tests.tokens import bearer, make_token, opened

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
#: Servers and rows stay as they are from one request to the next: that is what an API lives with.
LONG_RUN = settings(deadline=None, derandomize=True, max_examples=10, suppress_health_check=list(HealthCheck))
#: Beyond every id that is drawn: an admin's request would revoke the token of the next one.
FIRST_TOKEN_ID = 8_000_000

schema = schemathesis.openapi.from_dict(create_app(Settings(_env_file=None)).openapi())


@pytest.fixture
def api_settings(api_settings):
    """The usual ones, without the limits that so many requests would reach."""
    api = api_settings.api.model_copy(update={"max_requests_per_s": 0, "max_refused_tokens_per_min": 10**6})
    return api_settings.model_copy(update={"api": api})


@pytest.fixture
def holders(client, migrated_url, inspected):
    """The API with some rows, called by a holder of each scope, and by nobody known (None)."""
    assert inspected
    with opened(migrated_url) as database, database.transaction() as session:
        session.execute(text(f"ALTER SEQUENCE api_tokens_id_seq RESTART WITH {FIRST_TOKEN_ID}"))
    headers = {scope: bearer(make_token(migrated_url, scope=scope)) for scope in AccessScope}
    return {
        scope: TestClient(client.app, base_url=BASE_URL, headers=header, raise_server_exceptions=False)
        for scope, header in {**headers, None: {}}.items()
    }


@pytest.fixture
def turns():
    """Every scope in its turn, from one request to the next."""
    return cycle(AccessScope)


def send(case, client):
    """Send what was drawn, byte for byte, but for the token."""
    drawn = requests.Request(**case.as_transport_kwargs(base_url=BASE_URL)).prepare()
    drawn.headers.pop("Authorization", None)
    return client.request(drawn.method, drawn.url, headers=dict(drawn.headers), content=drawn.body)


@schema.parametrize()
@LONG_RUN
def test_no_request_makes_a_fault_or_is_answered_beyond_its_scope(case, holders, turns):
    check_nobody(case, send(case, holders[None]))
    scope = next(turns)
    answer = send(case, holders[scope])

    case.validate_response(answer, checks=CHECKS)
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")
    if answer.status_code >= 400:
        assert ErrorOut.model_validate(answer.json()).error.code
    if asks_what_is_there(case):
        needed = case.operation.definition.raw.get(SCOPE_KEY)
        is_refused = answer.status_code in {401, 403}
        assert is_refused == (needed is not None and not scope.includes(AccessScope(needed)))


def check_nobody(case, answer):
    """Nothing but the probes is answered without a token."""
    if case.operation.path in OPEN_PATHS:
        case.validate_response(answer, checks=CHECKS)
    else:
        assert answer.status_code == 401 or (answer.status_code == 405 and not asks_what_is_there(case))


def asks_what_is_there(case):
    """Methods that a path does not have are drawn too."""
    return case.method == case.operation.method.upper()
