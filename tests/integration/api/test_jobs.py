from __future__ import annotations

from datetime import datetime

import pytest
from fastapi.testclient import TestClient
from kombu import Connection
from pydantic import SecretStr

from api.app import create_app
from tests.faults.proxy import LOOPBACK, Disturbance, FaultProxy, Mode
from tests.images import draw_part, encode

BASE_URL = "http://127.0.0.1:8000"


def code_of(answer):
    return answer.json()["error"]["code"]


@pytest.fixture
def place(services):
    """Put objects into our bucket."""

    def put(*keys, data=None):
        for key in keys:
            services.storage.put(key, data or encode(draw_part()[0], "PNG"), content_type="image/png")

    return put


def test_a_job_of_named_images_takes_the_champion_and_its_defaults(client, submit, model, bucket):
    answer = submit({f"{n}.png": f"s3://{bucket}/in/{n}.png" for n in range(3)}, name="night shift")

    job = answer.json()
    assert answer.status_code == 201
    assert (job["state"], job["model_version"], job["name"]) == ("running", model, "night shift")
    assert job["source"] == {"kind": "images", "count": 3}
    assert job["images"] == {"total": 3, "pending": 3, "succeeded": 0, "failed": 0, "cancelled": 0}
    assert job["enumerated"] is True
    assert job["params"] == {
        "threshold": 0.4,
        "min_area_px": 16,
        "overlays": "defective",
        "mm_per_px": None,
        "qa_min_iou": 0.5,
        "resize_policy": None,
    }
    assert client.get(f"/v1/jobs/{job['id']}").json() == job


def test_a_job_keeps_what_was_asked_for(submit, model, publish_model, bucket):
    other = publish_model(threshold=0.9)
    asked = {
        "threshold": 0.25,
        "min_area_px": 0,
        "overlays": "all",
        "mm_per_px": 0.1,
        "qa_min_iou": 0.0,
        "resize_policy": "tile",
    }

    job = submit({"a.png": f"s3://{bucket}/a.png"}, model_version=other, **asked).json()

    assert job["model_version"] == other
    assert job["params"] == asked


def test_asking_for_the_models_own_way_to_resize_shares_its_results(submit, model, bucket):
    params = [
        submit({"a.png": f"s3://{bucket}/a.png"}, **asked).json()["params"]
        for asked in ({}, {"resize_policy": "stretch"})
    ]

    assert params[0] == params[1]


def test_an_unknown_way_to_resize_is_refused(submit, model, bucket):
    answer = submit({"a.png": f"s3://{bucket}/a.png"}, resize_policy="crop")

    assert answer.status_code == 422
    assert answer.json()["error"]["code"] == "invalid_request"
    assert "resize_policy" in answer.json()["error"]["message"]


def test_a_job_of_a_prefix_waits_for_its_enumeration(client, place, model, bucket):
    place("lot/images/a.png", "lot/labels/a.png")

    answer = client.post("/v1/jobs", json={"source": {"kind": "prefix", "uri": f"s3://{bucket}/lot/images"}})

    job = answer.json()
    assert answer.status_code == 201
    assert (job["state"], job["enumerated"], job["images"]["total"]) == ("pending", False, 0)
    assert job["source"] == {"kind": "prefix", "uri": f"s3://{bucket}/lot/images", "labels_uri": None}


def test_a_job_of_an_archive_waits_for_its_enumeration(client, place, model, bucket):
    place("in/batch.zip", data=b"not looked at yet")

    answer = client.post("/v1/jobs", json={"source": {"kind": "archive", "uri": f"s3://{bucket}/in/batch.zip"}})

    assert answer.status_code == 201
    assert answer.json()["source"] == {"kind": "archive", "uri": f"s3://{bucket}/in/batch.zip"}


@pytest.mark.usefixtures("model")
@pytest.mark.parametrize(
    ("source", "expected"),
    [
        pytest.param({"kind": "images", "images": []}, (422, "no_images_found"), id="an empty list"),
        pytest.param({"kind": "prefix", "uri": "s3://{own}/nothing"}, (422, "no_images_found"), id="an empty prefix"),
        pytest.param({"kind": "prefix", "uri": "s3://{own}/texts"}, (422, "no_images_found"), id="a prefix of texts"),
        pytest.param({"kind": "prefix", "uri": "s3://{own}/a//b"}, (422, "invalid_storage_uri"), id="no key begins so"),
        pytest.param({"kind": "prefix", "uri": "s3://not-ours/a"}, (422, "bucket_not_allowed"), id="a bucket not ours"),
        pytest.param({"kind": "prefix", "uri": "s3://is-missing/a"}, (404, "bucket_not_found"), id="a missing bucket"),
        pytest.param(
            {"kind": "prefix", "uri": "s3://{own}/lot", "labels_uri": "s3://is-missing/a"},
            (404, "bucket_not_found"),
            id="a missing bucket of labels",
        ),
        pytest.param(
            {"kind": "images", "images": [{"name": "a", "uri": "s3://not-ours/a"}]},
            (422, "bucket_not_allowed"),
            id="an image in a bucket not ours",
        ),
        pytest.param(
            {"kind": "images", "images": [{"name": "a", "uri": "s3://{own}/a", "label_uri": "s3://not-ours/a"}]},
            (422, "bucket_not_allowed"),
            id="a label in a bucket not ours",
        ),
        pytest.param(
            {"kind": "archive", "uri": "s3://{own}/gone.zip"}, (404, "object_not_found"), id="a missing archive"
        ),
        pytest.param(
            {"kind": "archive", "uri": "s3://{own}"}, (422, "invalid_storage_key"), id="an archive of no name"
        ),
        pytest.param(
            {"kind": "manifest", "uri": "s3://{own}/gone.csv"}, (404, "object_not_found"), id="a missing manifest"
        ),
        pytest.param(
            {"kind": "manifest", "uri": "s3://not-ours/a.csv"}, (422, "bucket_not_allowed"), id="a manifest not ours"
        ),
    ],
)
def test_a_source_that_cannot_be_read_is_refused(client, place, bucket, source, expected):
    place("lot/a.png", "texts/readme.txt")

    answer = client.post("/v1/jobs", json={"source": _filled(source, bucket)})

    assert (answer.status_code, code_of(answer)) == expected
    assert client.get("/v1/jobs").json()["items"] == []


def _filled(source, bucket):
    if isinstance(source, dict):
        return {name: _filled(value, bucket) for name, value in source.items()}
    if isinstance(source, list):
        return [_filled(value, bucket) for value in source]
    return source.replace("{own}", bucket)


def test_without_a_promoted_model_no_job_is_taken(submit, publish_model, bucket):
    publish_model()

    answer = submit({"a.png": f"s3://{bucket}/a.png"})

    assert (answer.status_code, code_of(answer)) == (409, "model_not_ready")


def test_an_unknown_model_version_is_not_found(submit, model, bucket):
    answer = submit({"a.png": f"s3://{bucket}/a.png"}, model_version=99)

    assert (answer.status_code, code_of(answer)) == (404, "model_version_not_found")


def test_a_job_is_taken_although_the_queue_is_away(client, model, bucket, api_settings, admin):
    url = SecretStr("redis://127.0.0.1:1/0")
    queue = api_settings.queue.model_copy(update={"url": url})

    app = create_app(api_settings.model_copy(update={"queue": queue}))
    with TestClient(app, base_url=BASE_URL, headers=admin) as other:
        answer = other.post(
            "/v1/jobs",
            json={"source": {"kind": "images", "images": [{"name": "a.png", "uri": f"s3://{bucket}/a.png"}]}},
        )

    assert answer.status_code == 201
    assert client.get(f"/v1/jobs/{answer.json()['id']}").json()["images"]["pending"] == 1


def test_a_job_is_taken_although_the_connection_to_the_queue_has_broken_since(model, bucket, api_settings, admin):
    broker = Connection(api_settings.queue.url.get_secret_value())
    body = {"source": {"kind": "images", "images": [{"name": "a.png", "uri": f"s3://{bucket}/a.png"}]}}
    with FaultProxy(broker.port) as proxy:
        url = SecretStr(f"redis://:{broker.password}@{LOOPBACK}:{proxy.port}/0")
        queue = api_settings.queue.model_copy(update={"url": url})
        app = create_app(api_settings.model_copy(update={"queue": queue}))
        with TestClient(app, base_url=BASE_URL, headers=admin) as other:
            first = other.post("/v1/jobs", json=body)
            proxy.disturb(Disturbance(mode=Mode.TRUNCATE))
            second = other.post("/v1/jobs", json=body)

    assert [first.status_code, second.status_code] == [201, 201]


def test_the_list_of_jobs_is_walked_once_newest_first(submit, walk, client, model, bucket):
    ids = [submit({"a.png": f"s3://{bucket}/a.png"}).json()["id"] for _ in range(5)]
    client.post(f"/v1/jobs/{ids[1]}/cancel")

    seen = walk("/v1/jobs", limit=2)
    running = walk("/v1/jobs", limit=2, state="running")

    assert [job["id"] for job in seen] == ids[::-1]
    assert [job["id"] for job in running] == [ids[4], ids[3], ids[2], ids[0]]


def test_cancelling_ends_a_job_that_nobody_has_begun(client, submit, model, bucket):
    job = submit({"a.png": f"s3://{bucket}/a.png"}).json()

    answer = client.post(f"/v1/jobs/{job['id']}/cancel")
    again = client.post(f"/v1/jobs/{job['id']}/cancel")

    assert answer.status_code == 200
    assert (answer.json()["state"], answer.json()["cancel_requested"]) == ("cancelled", True)
    assert answer.json()["images"]["cancelled"] == 1
    assert (again.status_code, code_of(again)) == (409, "job_not_cancellable")


def test_a_job_of_a_manifest_waits_for_its_enumeration(client, place, model, bucket):
    place("in/images.csv", data=b"uri\n")

    answer = client.post("/v1/jobs", json={"source": {"kind": "manifest", "uri": f"s3://{bucket}/in/images.csv"}})

    assert answer.status_code == 201
    assert answer.json()["source"] == {"kind": "manifest", "uri": f"s3://{bucket}/in/images.csv"}
    assert (answer.json()["state"], answer.json()["enumerated"]) == ("pending", False)


def test_a_paused_job_says_so_until_it_is_resumed(client, submit, walk, model, bucket):
    job = submit({"a.png": f"s3://{bucket}/a.png"}).json()

    paused = client.post(f"/v1/jobs/{job['id']}/pause")
    [listed] = walk("/v1/jobs")
    resumed = client.post(f"/v1/jobs/{job['id']}/resume")

    assert (paused.status_code, resumed.status_code) == (200, 200)
    assert [job["paused"], paused.json()["paused"], listed["paused"], resumed.json()["paused"]] == [
        False,
        True,
        True,
        False,
    ]
    assert paused.json()["state"] == "running"


def test_an_ended_job_is_neither_paused_nor_resumed(client, inspected):
    job_id, _ = inspected

    for verb in ("pause", "resume"):
        answer = client.post(f"/v1/jobs/{job_id}/{verb}")

        assert (answer.status_code, code_of(answer)) == (409, "job_not_pausable")


def test_a_priority_is_taken_with_the_job_and_changed_afterwards(client, submit, model, bucket):
    images = {"a.png": f"s3://{bucket}/a.png"}
    usual, urgent = submit(images).json(), submit(images, priority="high").json()

    changed = client.post(f"/v1/jobs/{usual['id']}/priority", json={"priority": "low"})
    refused = client.post(f"/v1/jobs/{usual['id']}/priority", json={"priority": "utmost"})

    assert (usual["priority"], urgent["priority"], changed.json()["priority"]) == ("normal", "high", "low")
    assert refused.status_code == 422
    assert client.get(f"/v1/jobs/{usual['id']}").json()["priority"] == "low"


def test_a_deadline_and_a_failure_budget_are_taken_with_the_job(client, submit, model, bucket):
    images = {"a.png": f"s3://{bucket}/a.png"}

    job = submit(images, deadline_s=90, max_failed_share=0.25).json()
    neither = submit(images).json()

    asked_s = datetime.fromisoformat(job["deadline_at"]) - datetime.fromisoformat(job["created_at"])
    assert (asked_s.total_seconds(), job["max_failed_share"]) == (90, 0.25)
    assert (neither["deadline_at"], neither["max_failed_share"]) == (None, None)
    assert client.get(f"/v1/jobs/{job['id']}").json() == job


@pytest.mark.parametrize(
    "asked",
    [
        pytest.param({"deadline_s": 0}, id="no-time"),
        pytest.param({"deadline_s": 10**9}, id="decades"),
        pytest.param({"max_failed_share": 1.1}, id="more-than-all"),
    ],
)
def test_a_deadline_or_a_failure_budget_that_makes_no_sense_is_refused(submit, model, bucket, asked):
    answer = submit({"a.png": f"s3://{bucket}/a.png"}, **asked)

    assert (answer.status_code, code_of(answer)) == (422, "invalid_request")


def test_the_same_key_with_another_deadline_is_a_conflict(submit, model, bucket):
    images = {"a.png": f"s3://{bucket}/a.png"}
    submit(images, key="k", deadline_s=90)

    answer = submit(images, key="k", deadline_s=91)

    assert (answer.status_code, code_of(answer)) == (409, "idempotency_conflict")


def test_a_running_job_cannot_be_retried(client, submit, model, bucket):
    job = submit({"a.png": f"s3://{bucket}/a.png"}).json()

    answer = client.post(f"/v1/jobs/{job['id']}/retry")

    assert (answer.status_code, code_of(answer)) == (409, "job_not_retryable")


def test_a_retry_opens_the_failed_images_again(client, work, inspected, walk):
    job_id, images = inspected

    answer = client.post(f"/v1/jobs/{job_id}/retry")

    job = answer.json()
    assert answer.status_code == 200
    assert (job["state"], job["finished_at"]) == ("running", None)
    assert job["images"] == {"total": 5, "pending": 1, "succeeded": 4, "failed": 0, "cancelled": 0}
    assert [item["name"] for item in walk(f"/v1/jobs/{job_id}/items", state="pending")] == ["d.png"]

    work(job, {"d.png": (images["c.png"], [])})

    assert client.get(f"/v1/jobs/{job_id}").json()["state"] == "succeeded"


def test_an_ended_job_has_everything_counted(client, inspected, walk):
    job_id, images = inspected

    job = client.get(f"/v1/jobs/{job_id}").json()
    items = {item["name"]: item for item in walk(f"/v1/jobs/{job_id}/items", limit=2)}

    assert job["state"] == "partial"
    assert (job["defective_images"], job["defects"], job["label_errors"]) == (3, 4, 0)
    assert (job["qa"]["images"], job["qa"]["passed"]) == (1, True)
    assert job["qa"]["pooled"]["iou_defect"] == pytest.approx(30 / 50)
    assert job["qa"]["mean"]["dice"] == pytest.approx(60 / 80)
    assert list(items) == ["a.png", "b.png", "c.png", "e.png", "d.png"]
    assert (items["a.png"]["verdict"], items["a.png"]["defect_count"]) == ("defective", 2)
    assert items["a.png"]["image_id"] == images["a.png"]["id"]
    assert items["d.png"]["error"] == {"code": "object_not_found", "message": "No object has this key."}
    assert items["e.png"]["qa"]["tp"] == 30


@pytest.mark.parametrize(
    ("method", "path"),
    [
        pytest.param("GET", "/v1/jobs/999", id="look"),
        pytest.param("POST", "/v1/jobs/999/cancel", id="cancel"),
        pytest.param("POST", "/v1/jobs/999/retry", id="retry"),
        pytest.param("GET", "/v1/jobs/999/items", id="items"),
    ],
)
def test_an_unknown_job_is_not_found(client, method, path):
    answer = client.request(method, path)

    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "job_not_found"
    assert answer.json()["error"]["details"] == {"job_id": 999}


def test_a_job_of_ten_thousand_images_is_one_request(client, model, bucket):
    listed = [{"name": f"{n:06}.png", "uri": f"s3://{bucket}/{n:06}.png"} for n in range(10_000)]

    answer = client.post("/v1/jobs", json={"source": {"kind": "images", "images": listed}})

    assert answer.status_code == 201
    assert answer.json()["images"]["pending"] == 10_000
