"""Rules of retention and holds over the API: who may, what is written down, and that they are followed."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text

from defectoscope.database import AccessScope
from tests.integration.api.conftest import BASE_URL
from tests.tokens import bearer, make_token


def code_of(answer):
    return answer.json()["error"]["code"]


@pytest.fixture
def holder(client, migrated_url):
    """The same API, called by somebody with a scope."""

    def of(scope):
        header = bearer(make_token(migrated_url, scope=scope, name=f"{scope}-1"))
        return TestClient(client.app, base_url=BASE_URL, headers=header)

    return of


@pytest.fixture
def old(inspected, services):
    """The id of an ended job of two months ago, with four results."""
    with services.database.transaction() as session:
        for table in ("jobs", "results", "images"):
            session.execute(text(f"UPDATE {table} SET created_at = created_at - interval '60 days'"))  # noqa: S608
    return inspected[0]


def add_rule(client, **asked):
    return client.post("/v1/retention-rules", json={"what": "masks", "older_than_days": 30} | asked)


def audit(client, count):
    lines = client.get("/v1/audit", params={"limit": count}).json()["items"]
    return [(line["actor"], line["action"], line["subject"], line["status"]) for line in lines][::-1]


def test_a_rule_is_written_counted_followed_and_taken_back(client, old, walk):
    rule = add_rule(client, keep_defective=False, actor="bob").json()
    shown = walk("/v1/retention-rules")

    due = client.get("/v1/retention-rules/due").json()
    applied = client.post("/v1/retention-rules/apply").json()
    result = walk("/v1/results", job=old)[0]
    mask = client.get(f"/v1/results/{result['id']}/mask")
    removed = client.delete(f"/v1/retention-rules/{rule['id']}")

    assert (rule["actor"], rule["keep_defective"], rule["job_id"]) == ("ann for bob", False, None)
    assert shown == [rule]
    assert due == {"items": [{"rule_id": rule["id"], "rows": 4}]}
    assert applied == {"items": [{"rule_id": rule["id"], "rows": 4}], "is_done": True}
    assert (mask.status_code, code_of(mask)) == (410, "deleted_by_retention")
    assert removed.json() == rule
    assert walk("/v1/retention-rules") == []
    assert audit(client, 3) == [
        ("ann", "POST /v1/retention-rules", f"retention-rules/{rule['id']}", 201),
        ("ann", "POST /v1/retention-rules/apply", None, 200),
        ("ann", "DELETE /v1/retention-rules/{rule_id}", f"retention-rules/{rule['id']}", 200),
    ]


def test_a_hold_of_an_operator_spares_a_job_until_an_admin_removes_it(client, holder, old, walk):
    operator = holder(AccessScope.OPERATOR)
    add_rule(client, keep_defective=False)

    hold = operator.post("/v1/holds", json={"job_id": old, "reason": "claim 7"}).json()
    held = client.post("/v1/retention-rules/apply").json()["items"]
    refused = operator.delete(f"/v1/holds/{hold['id']}")
    listed = walk("/v1/holds")
    removed = client.delete(f"/v1/holds/{hold['id']}").json()
    freed = client.get("/v1/retention-rules/due").json()["items"]

    assert (hold["actor"], hold["job_id"], hold["image_id"]) == ("operator-1", old, None)
    assert [count["rows"] for count in held] == [0]
    assert (refused.status_code, code_of(refused)) == (403, "scope_too_small")
    assert listed == [hold] == [removed]
    assert [count["rows"] for count in freed] == [4]
    assert audit(client, 3) == [
        ("ann", "POST /v1/retention-rules/apply", None, 200),
        ("operator-1", "DELETE /v1/holds/{hold_id}", f"holds/{hold['id']}", 403),
        ("ann", "DELETE /v1/holds/{hold_id}", f"holds/{hold['id']}", 200),
    ]


def test_an_image_is_held_whatever_job_it_is_in(client, old, walk):
    add_rule(client, keep_defective=False)
    image_id = walk("/v1/results", job=old)[0]["image"]["id"]

    client.post("/v1/holds", json={"image_id": image_id, "reason": "claim 8"})

    assert client.get("/v1/retention-rules/due").json()["items"][0]["rows"] == 3


def test_the_lists_are_walked_newest_first(client, old, walk):
    rules = [add_rule(client, older_than_days=days).json()["id"] for days in range(1, 5)]
    holds = [client.post("/v1/holds", json={"job_id": old, "reason": "r"}).json()["id"] for _ in range(4)]

    assert [rule["id"] for rule in walk("/v1/retention-rules", limit=3)] == rules[::-1]
    assert [hold["id"] for hold in walk("/v1/holds", limit=3)] == holds[::-1]


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        pytest.param("retention-rules", {"older_than_days": 0}, (422, "invalid_request"), id="no days"),
        pytest.param("retention-rules", {"older_than_days": 36_501}, (422, "invalid_request"), id="beyond dates"),
        pytest.param("retention-rules", {"what": "verdicts"}, (422, "invalid_request"), id="what is kept for ever"),
        pytest.param("retention-rules", {"job_id": 99}, (404, "job_not_found"), id="a rule for no job"),
        pytest.param("holds", {}, (422, "invalid_request"), id="a hold on nothing"),
        pytest.param("holds", {"job_id": 1, "image_id": 1}, (422, "invalid_request"), id="a hold on both"),
        pytest.param("holds", {"job_id": 99}, (404, "job_not_found"), id="a hold on no job"),
        pytest.param("holds", {"image_id": 99}, (404, "image_not_found"), id="a hold on no image"),
        pytest.param("holds", {"job_id": 1, "reason": "  "}, (422, "invalid_request"), id="a hold for no reason"),
    ],
)
def test_what_cannot_be_is_refused_and_leaves_nothing(client, walk, path, body, expected):
    valid = {"retention-rules": {"what": "masks", "older_than_days": 30}, "holds": {"reason": "claim 7"}}[path]

    answer = client.post(f"/v1/{path}", json=valid | body)

    assert (answer.status_code, code_of(answer)) == expected
    assert walk(f"/v1/{path}") == []


@pytest.mark.parametrize(
    ("path", "code"), [("retention-rules", "retention_rule_not_found"), ("holds", "hold_not_found")]
)
def test_what_is_removed_twice_was_gone(client, path, code):
    answer = client.delete(f"/v1/{path}/7")

    assert (answer.status_code, code_of(answer)) == (404, code)
