"""Too many requests, and too many wrong tokens, have to wait; others do not have to wait for them."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
from fastapi.testclient import TestClient

from api.app import create_app
from defectoscope.access.tokens import Token, make_secret
from tests.integration.api.conftest import BASE_URL
from tests.tokens import bearer, make_token


@pytest.fixture
def serve(api_settings):
    """Start an API with limits; it is called from an address, with a token."""
    with ExitStack() as running:

        def start(**limits):
            api = api_settings.api.model_copy(update=limits)
            app = create_app(api_settings.model_copy(update={"api": api}))
            running.enter_context(TestClient(app, base_url=BASE_URL))

            def call(headers, *, address="10.0.0.1", path="/v1/jobs"):
                return TestClient(app, base_url=BASE_URL, client=(address, 1), headers=headers).get(path)

            return call

        yield start


@pytest.fixture
def call(serve):
    """An API that takes 0.3 requests a second, so 3 at once of a token and 6 of an address."""
    return serve(max_requests_per_s=0.3)


def codes_of(answers):
    return [answer.status_code for answer in answers]


def wrong():
    return bearer(Token(999, make_secret()).text)


def test_a_token_that_asks_too_often_has_to_wait_and_is_told_how_long(call, admin, migrated_url):
    answers = [call(admin, address=f"10.0.0.{number}") for number in range(5)]
    other = call(bearer(make_token(migrated_url)))

    assert codes_of(answers) == [200, 200, 200, 429, 429]
    assert answers[3].json()["error"]["code"] == "too_many_requests"
    assert 1 <= int(answers[3].headers["Retry-After"]) <= 4
    assert other.status_code == 200


def test_an_address_that_asks_too_often_has_to_wait_whatever_its_tokens(call, migrated_url):
    answers = [call(bearer(make_token(migrated_url))) for _ in range(8)]
    elsewhere = call(bearer(make_token(migrated_url)), address="10.0.0.2")

    assert codes_of(answers) == [200] * 6 + [429] * 2
    assert elsewhere.status_code == 200


def test_the_probes_are_always_answered(call):
    answers = [call({}, path="/healthz") for _ in range(20)]

    assert set(codes_of(answers)) == {200}


def test_wrong_tokens_have_to_wait_sooner_and_keep_no_neighbour_out(serve, admin, migrated_url):
    call = serve(max_refused_tokens_per_min=4)
    before = call(admin)
    refused = [call(wrong()) for _ in range(4)]
    unknown_yet = call(bearer(make_token(migrated_url)))
    neighbour = call(admin)
    elsewhere = call(bearer(make_token(migrated_url)), address="10.0.0.2")

    assert codes_of([before, *refused]) == [200, 401, 401, 401, 401]
    assert (unknown_yet.status_code, unknown_yet.json()["error"]["code"]) == (429, "too_many_requests")
    assert int(unknown_yet.headers["Retry-After"]) <= 15
    assert neighbour.status_code == 200
    assert elsewhere.status_code == 200


def test_requests_without_a_token_have_to_wait_as_those_with_a_wrong_one(serve):
    call = serve(max_refused_tokens_per_min=4)

    assert codes_of([call({}) for _ in range(6)]) == [401, 401, 401, 401, 429, 429]
