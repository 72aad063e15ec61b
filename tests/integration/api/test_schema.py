"""Requests drawn from the whole OpenAPI document: whatever is sent, no fault of ours, and nothing beyond a scope."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.access import OPEN_PATHS, SCOPE_KEY
from api.app import create_app
from api.schemas.errors import ErrorOut
from defectoscope.database import AccessScope
from defectoscope.settings import Settings
from tests.integration.api.conftest import BASE_URL
from tests.schema_requests import Requests
from tests.tokens import bearer, make_token

DOCUMENT = create_app(Settings(_env_file=None)).openapi()
REQUESTS = Requests(DOCUMENT)
OPERATIONS = {
    f"{method.upper()} {path}": (method.upper(), path, operation)
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
}
#: A request of any operation, with the operation's name.
ANY_REQUEST = st.sampled_from(sorted(OPERATIONS)).flatmap(
    lambda name: st.tuples(st.just(name), REQUESTS.of(*OPERATIONS[name]))
)
#: Servers and rows stay as they are from one request to the next: that is what an API lives with.
LONG_RUN = settings(deadline=None, max_examples=400, suppress_health_check=list(HealthCheck))

pytestmark = pytest.mark.timeout(400)


@pytest.fixture
def api_settings(api_settings):
    """The usual ones, without the limits that so many requests would reach."""
    api = api_settings.api.model_copy(update={"max_requests_per_s": 0, "max_refused_tokens_per_min": 10**6})
    return api_settings.model_copy(update={"api": api})


@pytest.fixture
def holders(client, migrated_url, inspected):
    """The API with some rows, called by a holder of each scope and by nobody known.

    The ids of the first tokens may be drawn, to be revoked: those belong to others.
    """
    make_token(migrated_url)
    headers = {scope: bearer(make_token(migrated_url, scope=scope)) for scope in AccessScope}
    assert inspected
    return {
        scope: TestClient(client.app, base_url=BASE_URL, headers=header, raise_server_exceptions=False)
        for scope, header in {**headers, None: {}}.items()
    }


def complaint(name, drawn, answer):
    return f"{name}: {drawn} -> {answer.status_code} {answer.text[:300]}"


def test_no_request_makes_a_fault_and_none_is_answered_beyond_its_scope(holders):
    seen = {}

    @LONG_RUN
    @given(ANY_REQUEST, st.sampled_from(list(AccessScope)))
    def check(request, scope):
        (name, drawn) = request
        answer = drawn.sent_by(holders[scope])
        said = complaint(name, drawn, answer)
        seen[name, answer.status_code] = seen.get((name, answer.status_code), 0) + 1

        assert answer.status_code < 500, said
        assert answer.headers["X-Content-Type-Options"] == "nosniff", said
        assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'"), said
        operation = OPERATIONS[name][2]
        if SCOPE_KEY in operation:
            is_refused = answer.status_code in {401, 403}
            assert is_refused == (not scope.includes(AccessScope(operation[SCOPE_KEY]))), said
        if answer.status_code >= 400:
            assert ErrorOut.model_validate(answer.json()).error.code, said
        else:
            assert str(answer.status_code) in operation["responses"], said

    check()

    # The requests were not all refused at the door: most operations were met in full by somebody.
    assert len({name for name, status in seen if status < 300}) > len(OPERATIONS) / 3, seen


def test_no_request_without_a_token_is_answered(holders):
    @settings(LONG_RUN, max_examples=150)
    @given(ANY_REQUEST)
    def check(request):
        (name, drawn) = request
        answer = drawn.sent_by(holders[None])

        if OPERATIONS[name][1] in OPEN_PATHS:
            assert answer.status_code == 200, complaint(name, drawn, answer)
        else:
            assert answer.status_code == 401, complaint(name, drawn, answer)

    check()
