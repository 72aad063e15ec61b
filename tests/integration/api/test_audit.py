"""The audit log: a line for every request that asks for a change, whatever came of it, and none is ever changed."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import delete, update
from sqlalchemy.exc import DBAPIError

from defectoscope.access.audit import begin_entry
from defectoscope.access.store import Principal
from defectoscope.database import AccessScope, AuditEntry
from tests.integration.api.conftest import BASE_URL
from tests.tokens import bearer, make_token


@pytest.fixture
def entries(client):
    """The lines of the log, newest first."""

    def read(**query):
        return client.get("/v1/audit", params=query).json()["items"]

    return read


def facts(entry):
    return tuple(entry[name] for name in ("actor", "action", "subject", "status", "error_code"))


def test_a_change_leaves_a_line_with_who_what_and_what_came_of_it(client, entries, inspected):
    job_id, _ = inspected

    client.post(f"/v1/jobs/{job_id}/retry", headers={"X-Request-Id": "r-1"})

    newest = entries()[0]
    assert facts(newest) == ("ann", "POST /v1/jobs/{job_id}/retry", f"jobs/{job_id}", 200, None)
    assert (newest["token_id"], newest["request_id"], newest["address"]) == (1, "r-1", "testclient")


def test_what_was_made_is_named(client, entries, upload, submit, model):
    image = upload()
    job = submit({"a.png": image["uri"]}).json()
    token = client.post("/v1/tokens", json={"name": "line-3", "scope": "viewer"}).json()

    assert [facts(entry)[1:] for entry in entries()] == [
        ("POST /v1/tokens", f"tokens/{token['id']}", 201, None),
        ("POST /v1/jobs", f"jobs/{job['id']}", 201, None),
        ("POST /v1/images", f"images/{image['id']}", 201, None),
    ]
    assert model


@pytest.mark.parametrize(
    ("path", "body", "outcome"),
    [
        pytest.param("/v1/jobs/99/cancel", None, ("jobs/99", 404, "job_not_found"), id="not there"),
        pytest.param("/v1/jobs", {}, (None, 422, "invalid_request"), id="not valid"),
        pytest.param("/v1/jobs/a%00b/cancel", None, ("jobs/a?b", 422, "invalid_request"), id="NUL in the path"),
    ],
)
def test_a_refused_change_leaves_a_line_too(client, entries, path, body, outcome):
    client.post(path, json=body)

    assert facts(entries()[0])[2:] == outcome


def test_whoever_tries_what_the_scope_does_not_allow_is_seen(client, entries, migrated_url):
    viewer = bearer(make_token(migrated_url, scope=AccessScope.VIEWER, name="eve"))

    TestClient(client.app, base_url=BASE_URL).post("/v1/models/1/retire", json={}, headers=viewer)

    assert facts(entries()[0]) == ("eve", "POST /v1/models/{number}/retire", "models/1", 403, "scope_too_small")


def test_looking_leaves_no_line_and_strangers_leave_none(client, entries):
    client.get("/v1/jobs")
    TestClient(client.app, base_url=BASE_URL).post("/v1/jobs", json={})

    assert entries() == []


def test_the_lines_of_one_token_can_be_asked_for(client, entries, walk, migrated_url):
    operator = bearer(make_token(migrated_url, scope=AccessScope.OPERATOR, name="line-3"))
    for headers in ({}, operator, {}, operator):
        client.post("/v1/jobs/1/cancel", headers=headers)

    assert [entry["actor"] for entry in entries(token=2)] == ["line-3", "line-3"]
    assert [entry["id"] for entry in walk("/v1/audit", limit=1)] == [4, 3, 2, 1]


CHANGES = {
    "deleted": delete(AuditEntry),
    "blamed on another": update(AuditEntry).values(actor="mallory"),
    "given another outcome": update(AuditEntry).values(status=500),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_line_with_an_outcome_stays_as_it_is(client, entries, services, change):
    client.post("/v1/jobs/1/cancel")

    with pytest.raises(DBAPIError, match="only ever appended to"), services.database.transaction() as session:
        session.execute(change)

    assert facts(entries()[0])[3:] == (404, "job_not_found")


def test_a_line_of_a_process_that_ended_first_says_so_and_can_be_given_nothing_but_an_outcome(entries, services):
    with services.database.transaction() as session:
        begin_entry(
            session,
            principal=Principal(None, "ann", AccessScope.ADMIN),
            action="POST /v1/jobs",
            subject=None,
            request_id="r-1",
            address=None,
        )

    with pytest.raises(DBAPIError, match="only ever appended to"), services.database.transaction() as session:
        session.execute(update(AuditEntry).values(actor="mallory", status=201))

    assert facts(entries()[0]) == ("ann", "POST /v1/jobs", None, None, None)
