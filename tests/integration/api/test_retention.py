"""What retention deleted is answered with 410 and a moment, and what clients announce is kept for them."""

from __future__ import annotations

import hashlib
from datetime import timedelta

import pytest
from sqlalchemy import text

from defectoscope.objects import collect
from defectoscope.storage import content_key

NO_GRACE = timedelta(minutes=-5)


@pytest.fixture
def result(inspected, walk):
    job_id, _ = inspected
    return walk("/v1/results", job=job_id)[0]


@pytest.fixture
def execute(services):
    def run(statement):
        with services.database.transaction() as session:
            session.execute(text(statement))

    return run


@pytest.fixture
def collect_now(services):
    def run():
        return collect(
            database=services.database,
            storage=services.storage,
            bucket=services.bucket,
            grace=NO_GRACE,
            owner="test",
        )

    return run


def test_deleted_masks_overlays_and_originals_are_gone_with_a_moment_and_the_facts_stay(client, result, execute):
    execute("UPDATE results SET deleted_at = '2026-11-20T12:00:00Z'")
    execute("UPDATE images SET deleted_at = '2026-11-21T12:00:00Z'")
    paths = {
        f"/v1/results/{result['id']}/mask": "2026-11-20T12:00:00+00:00",
        f"/v1/results/{result['id']}/overlay": "2026-11-20T12:00:00+00:00",
        f"/v1/images/{result['image']['id']}/content": "2026-11-21T12:00:00+00:00",
    }

    answers = {path: client.get(path) for path in paths}
    shown = client.get(f"/v1/results/{result['id']}").json()

    for path, moment in paths.items():
        error = answers[path].json()["error"]
        assert (answers[path].status_code, error["code"]) == (410, "deleted_by_retention")
        assert error["details"] == {"deleted_at": moment}
        assert moment in error["message"]
    assert (shown["deleted_at"], shown["image"]["deleted_at"]) == ("2026-11-20T12:00:00Z", "2026-11-21T12:00:00Z")
    assert shown["defect_count"] == result["defect_count"]


def test_an_image_that_is_uploaded_again_is_whole_again(client, upload, execute):
    image = upload(5)
    execute("UPDATE images SET deleted_at = now()")

    again = upload(5)

    assert again == image
    assert client.get(f"/v1/images/{image['id']}/content").status_code == 200


def test_a_content_that_a_client_was_told_to_be_stored_stays_though_nothing_points_at_it(
    client, services, execute, collect_now
):
    data = b"announced"
    sha256 = hashlib.sha256(data).hexdigest()
    services.storage.put(content_key(sha256), data, content_type="image/png")
    wanted = {"objects": [{"sha256": sha256, "size_bytes": len(data), "content_type": "image/png"}]}

    (told,) = client.post("/v1/uploads", json=wanted).json()["items"]
    collect_now()
    stayed = services.storage.exists(content_key(sha256))
    execute("UPDATE object_leases SET expires_at = now()")
    collect_now()

    assert told["upload"] is None
    assert (stayed, services.storage.exists(content_key(sha256))) == (True, False)


def test_a_content_that_is_being_deleted_is_announced_a_little_later(client, execute):
    key = content_key("ab" * 32)
    execute(f"INSERT INTO condemned_objects VALUES ('{key}', now(), NULL)")  # noqa: S608 -- a constant
    wanted = {"objects": [{"sha256": "ab" * 32, "size_bytes": 1, "content_type": "image/png"}]}

    answer = client.post("/v1/uploads", json=wanted)

    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "objects_being_deleted")
    assert int(answer.headers["Retry-After"]) > 0
