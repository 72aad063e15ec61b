"""Who gets in, and to what: each route against each scope, and tokens that are wrong in each way."""

from __future__ import annotations

import hashlib
from datetime import timedelta

import httpx
import pytest
from fastapi.routing import iter_route_contexts
from fastapi.testclient import TestClient
from sqlalchemy import update

from api.access import OPEN_PATHS
from api.app import create_app
from defectoscope.access.store import revoke_token
from defectoscope.access.tokens import Token, make_secret, read_token
from defectoscope.database import AccessScope, ApiToken
from tests.integration.api.conftest import BASE_URL
from tests.tokens import bearer, make_token

SCOPES = list(AccessScope)


def code_of(answer):
    return answer.json()["error"]["code"]


@pytest.fixture
def stranger(client):
    """The same API, called by somebody without a token."""
    return TestClient(client.app, base_url=BASE_URL)


@pytest.fixture
def holders(client, migrated_url):
    """The same API, called by a holder of each scope."""
    return {
        scope: TestClient(client.app, base_url=BASE_URL, headers=bearer(make_token(migrated_url, scope=scope)))
        for scope in SCOPES
    }


def routes_of(app):
    """Every method and path that needs a token, with its scope and harmless values in its path."""
    for route in iter_route_contexts(app.routes):
        if route.path not in OPEN_PATHS:
            (method,) = route.methods
            path = route.path.replace("{precision}", "fp32")
            while "{" in path:
                path = path[: path.index("{")] + "99" + path[path.index("}") + 1 :]
            yield method, path, route.original_route.scope


def test_each_route_is_answered_to_its_scope_and_those_above_it_and_to_no_other(client, holders):
    wrong = []
    for method, path, needed in routes_of(client.app):
        for scope, holder in holders.items():
            answer = holder.request(method, path, json={})
            refused = answer.status_code == 403
            if refused != (not scope.includes(needed)) or answer.status_code in {401, 500}:
                wrong.append((method, path, scope, answer.status_code))
            elif refused and code_of(answer) != "scope_too_small":
                wrong.append((method, path, scope, code_of(answer)))

    assert wrong == []


def test_a_refusal_says_which_scope_is_needed(holders):
    answer = holders[AccessScope.VIEWER].post("/v1/jobs/1/cancel")

    assert answer.status_code == 403
    assert answer.json()["error"]["details"] == {"needed": "operator", "given": "viewer"}


def test_a_body_is_not_looked_at_before_the_scope(holders):
    answer = holders[AccessScope.VIEWER].post(
        "/v1/jobs", content=b"{" * 1000, headers={"Content-Type": "application/json"}
    )

    assert (answer.status_code, code_of(answer)) == (403, "scope_too_small")


def changed_token(migrated_url, services, change):
    text = make_token(migrated_url)
    with services.database.transaction() as session:
        change(session, read_token(text).id)
    return text


def expire(session, token_id):
    session.execute(
        update(ApiToken).where(ApiToken.id == token_id).values(expires_at=ApiToken.created_at - timedelta(seconds=1))
    )


@pytest.mark.parametrize(
    ("header_of", "code"),
    [
        pytest.param(lambda _: None, "token_missing", id="no header"),
        pytest.param(lambda text: f"Basic {text}", "token_malformed", id="another scheme"),
        pytest.param(lambda text: text, "token_malformed", id="no scheme"),
        pytest.param(lambda text: f"Bearer {text[:-1]}", "token_malformed", id="cut off"),
        pytest.param(lambda _: "Bearer ", "token_malformed", id="nothing"),
        pytest.param(lambda _: "Bearer " + "x" * 10_000, "token_malformed", id="very long"),
        pytest.param(lambda _: f"Bearer {Token(999, make_secret()).text}", "token_unknown", id="no such token"),
        pytest.param(
            lambda text: f"Bearer {Token(read_token(text).id, make_secret()).text}",
            "token_unknown",
            id="an id with another secret",
        ),
        pytest.param(lambda text: f"bearer  {text} ", None, id="the scheme in small letters"),
    ],
)
def test_a_wrong_token_is_refused_under_a_stable_code(stranger, migrated_url, header_of, code):
    header = header_of(make_token(migrated_url))

    answer = stranger.get("/v1/jobs", headers={} if header is None else {"Authorization": header})

    assert answer.status_code == (200 if code is None else 401)
    if code is not None:
        assert code_of(answer) == code
        assert answer.headers["WWW-Authenticate"] == 'Bearer realm="defectoscope"'


@pytest.mark.parametrize(
    ("change", "code"),
    [pytest.param(revoke_token, "token_revoked", id="revoked"), pytest.param(expire, "token_expired", id="expired")],
)
def test_a_token_that_has_ended_is_refused_at_once(stranger, services, migrated_url, change, code):
    text = changed_token(migrated_url, services, change)

    answer = stranger.get("/v1/jobs", headers=bearer(text))

    assert (answer.status_code, code_of(answer)) == (401, code)


def test_a_token_in_the_address_lets_nobody_in(stranger, migrated_url):
    text = make_token(migrated_url)

    answers = [stranger.get("/v1/jobs", params={name: text}) for name in ("token", "access_token", "api_key")]

    assert {answer.status_code for answer in answers} == {401}


def test_a_token_is_made_used_listed_and_revoked(client, stranger):
    made = client.post("/v1/tokens", json={"name": "line-3", "scope": "operator", "expires_in_days": 30}).json()
    header = bearer(made["token"])
    seen = stranger.get("/v1/tokens/self", headers=header).json()
    listed = client.get("/v1/tokens").json()["items"][0]
    revoked = client.post(f"/v1/tokens/{made['id']}/revoke").json()
    again = client.post(f"/v1/tokens/{made['id']}/revoke").json()

    assert seen == {"token_id": made["id"], "name": "line-3", "scope": "operator"}
    assert (listed["name"], listed["created_by"], listed["revoked_at"]) == ("line-3", "ann", None)
    assert listed["last_used_at"] is not None
    assert "token" not in listed
    assert again["revoked_at"] == revoked["revoked_at"] is not None
    assert stranger.get("/v1/tokens/self", headers=header).status_code == 401


def test_a_token_that_is_not_there_cannot_be_revoked(client):
    answer = client.post("/v1/tokens/999/revoke")

    assert (answer.status_code, code_of(answer)) == (404, "token_not_found")


@pytest.mark.parametrize(
    "body",
    [
        pytest.param({"name": "", "scope": "viewer"}, id="no name"),
        pytest.param({"name": "a" * 101, "scope": "viewer"}, id="a long name"),
        pytest.param({"name": "a", "scope": "root"}, id="no such scope"),
        pytest.param({"name": "a", "scope": "viewer", "expires_in_days": 0}, id="no day"),
        pytest.param({"name": "a", "scope": "viewer", "expires_in_days": 4000}, id="too many days"),
    ],
)
def test_a_token_that_makes_no_sense_is_not_made(client, body):
    assert client.post("/v1/tokens", json=body).status_code == 422


def test_only_the_hash_of_a_token_is_stored(client, services):
    text = client.post("/v1/tokens", json={"name": "line-3", "scope": "viewer"}).json()["token"]

    with services.database.transaction() as session:
        row = session.get(ApiToken, read_token(text).id)

    secret = read_token(text).secret
    assert row.sha256 == hashlib.sha256(secret.encode()).hexdigest()
    assert not [value for value in vars(row).values() if secret in str(value)]


def test_the_last_use_is_written_once_a_minute(client, services):
    client.get("/v1/jobs")
    first = client.get("/v1/tokens").json()["items"][0]["last_used_at"]
    with services.database.transaction() as session:
        session.execute(update(ApiToken).values(last_used_at=ApiToken.last_used_at - timedelta(minutes=2)))

    later = client.get("/v1/tokens").json()["items"][0]["last_used_at"]
    latest = client.get("/v1/tokens").json()["items"][0]["last_used_at"]

    assert later > first
    assert latest == later


def test_where_no_token_is_needed_everybody_on_this_machine_gets_in(api_settings):
    api = api_settings.api.model_copy(update={"require_token": False})

    with TestClient(create_app(api_settings.model_copy(update={"api": api})), base_url=BASE_URL) as anybody:
        seen = anybody.get("/v1/tokens/self")

    assert seen.json() == {"token_id": None, "name": "anybody", "scope": "admin"}


def test_a_signed_upload_needs_a_token_to_be_signed_and_none_to_be_sent(client, stranger):
    data = b"an image"
    wanted = {
        "objects": [{"sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data), "content_type": "image/png"}]
    }
    refused = stranger.post("/v1/uploads", json=wanted)
    upload = client.post("/v1/uploads", json=wanted).json()["items"][0]["upload"]

    sent = httpx.put(upload["url"], content=data, headers=upload["headers"])

    assert refused.status_code == 401
    assert sent.is_success
    assert client.post("/v1/uploads", json=wanted).json()["items"][0]["upload"] is None


def test_the_document_is_served_to_whoever_has_a_token(client, stranger):
    assert client.get("/openapi.json").json() == client.app.openapi()
    assert stranger.get("/openapi.json").status_code == 401


@pytest.mark.parametrize(
    ("said", "actor"),
    [
        pytest.param({}, "ann", id="nobody else"),
        pytest.param({"actor": "ann"}, "ann", id="the holder"),
        pytest.param({"actor": "bob"}, "ann for bob", id="somebody else"),
    ],
)
def test_the_ledger_names_the_token(client, model, publish_model, said, actor):
    second = publish_model()

    promoted = client.post(f"/v1/models/{second}/promote", json={"reason": "better", **said}).json()

    assert model != second
    assert promoted["ledger"][0]["actor"] == actor
