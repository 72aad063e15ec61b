"""Decisions, comparisons, files and imports of models over HTTP."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta

import httpx
import pytest
from sqlalchemy import insert

from defectoscope.database import DatasetItem, DatasetRevision, Image, Label, Split
from defectoscope.errors.models import ModelNotOnnx
from defectoscope.registry import ImageEvaluation, claim_import, fail_import, record_evaluation
from defectoscope.segmentation import PixelCounts

MODEL_BYTES = b"not really a model"
SHA256 = hashlib.sha256(MODEL_BYTES).hexdigest()
ANN = {"actor": "ann", "reason": "Checked on last week's parts."}


def code_of(answer):
    return answer.json()["error"]["code"]


@pytest.fixture
def decide(client):
    """POST a decision about a model."""

    def send(path, **given):
        return client.post(f"/v1/models/{path}", json=ANN | given)

    return send


@pytest.fixture
def two_models(model, publish_model):
    """The champion, and a version that was never in service: 1 and 2."""
    return model, publish_model()


@pytest.fixture
def score(services):
    """Record how versions did on the three validation images of a revision: of 10 defect pixels, so many were found."""
    with services.database.transaction() as session:
        revision = DatasetRevision(
            name="steel", number=1, sha256="0" * 64, manifest_key="k", train_count=1, val_count=3
        )
        session.add(revision)
        session.flush()
        for number in (1, 2, 3):
            facts = {"sha256": f"{number:064x}", "key": str(number), "format": "PNG", "source_mode": "RGB"}
            session.execute(insert(Image).values(size_bytes=1, width=10, height=10, **facts))
            label = {"image_id": number, "key": "k", "sha256": f"{number:064x}", "source": "dataset:steel"}
            session.execute(insert(Label).values(defect_px=10, **label))
            item = {"image_id": number, "label_id": number, "name": f"{number}.png", "split": Split.VAL}
            session.execute(insert(DatasetItem).values(revision_id=revision.id, **item))

    def record(number, *found):
        entries = [
            ImageEvaluation(image_id=image_id, counts=PixelCounts(tp, 0, 10 - tp, 90))
            for image_id, tp in enumerate(found, 1)
        ]
        with services.database.transaction() as session:
            record_evaluation(session, number=number, revision_id=1, precision="fp32", entries=entries)

    return record


@pytest.fixture
def store(services):
    """Put the bytes of a model file where an upload puts them."""

    def put(data=MODEL_BYTES):
        sha256 = hashlib.sha256(data).hexdigest()
        services.storage.put(f"objects/sha256/{sha256[:2]}/{sha256}", data, content_type="application/octet-stream")
        return sha256

    return put


def test_a_promotion_by_hand_says_what_the_gate_thinks_of_it(client, decide, model, publish_model, score):
    second = publish_model()
    score(model, 8, 8, 8)
    score(second, 2, 3, 4)

    answer = decide(f"{second}/promote")

    promoted = answer.json()
    [line] = promoted["ledger"]
    assert (answer.status_code, promoted["is_champion"]) == (200, True)
    assert (line["action"], line["previous_version"], line["actor"]) == ("promoted", model, "ann")
    assert line["figures"]["by_hand"] is True
    assert line["figures"]["gate"]["promoted"] is False
    assert client.get(f"/v1/models/{model}").json()["is_champion"] is False


def test_a_version_that_was_never_scored_can_be_promoted_and_the_ledger_says_so(decide, model, publish_model):
    answer = decide(f"{publish_model()}/promote")

    assert answer.status_code == 200
    assert "same dataset revision" in answer.json()["ledger"][0]["figures"]["not_compared"]


def test_the_first_version_may_be_promoted_by_hand(decide, publish_model):
    number = publish_model()

    refused = decide(f"{number}/promote", expected_champion=number)
    answer = decide(f"{number}/promote", expected_champion=None)

    assert (refused.status_code, code_of(refused)) == (409, "champion_changed")
    assert answer.json()["ledger"][0]["previous_version"] is None


@pytest.mark.parametrize(
    ("path", "given", "refusal"),
    [
        pytest.param("1/promote", {}, (409, "already_champion"), id="promote the champion"),
        pytest.param("9/promote", {}, (404, "model_version_not_found"), id="promote what is not there"),
        pytest.param("2/promote", {"expected_champion": 2}, (409, "champion_changed"), id="another champion"),
        pytest.param("2/promote", {"reason": ""}, (422, "invalid_request"), id="no reason"),
        pytest.param("2/promote", {"reason": "  "}, (422, "invalid_request"), id="blank reason"),
        pytest.param("2/promote", {"actor": ""}, (422, "invalid_request"), id="an actor without a name"),
        pytest.param("rollback", {}, (409, "nothing_to_roll_back_to"), id="nothing before"),
        pytest.param("rollback", {"to": 2}, (409, "nothing_to_roll_back_to"), id="never in service"),
        pytest.param("rollback", {"to": 1}, (409, "already_champion"), id="back to the champion"),
        pytest.param("1/retire", {}, (409, "model_in_service"), id="retire the champion"),
        pytest.param("9/retire", {}, (404, "model_version_not_found"), id="retire what is not there"),
    ],
)
@pytest.mark.usefixtures("two_models")
def test_a_decision_that_cannot_be_made_is_refused_by_name(client, decide, path, given, refusal):

    answer = decide(path, **given)

    assert (answer.status_code, code_of(answer)) == refusal
    assert [line["model_version"] for line in client.get("/v1/models/history").json()["items"]] == [1]


def test_a_rollback_returns_the_version_that_serves_again(client, decide, model, publish_model):
    second, third = publish_model(), publish_model()
    decide(f"{second}/promote")
    decide(f"{third}/promote")

    first_step = decide("rollback", expected_champion=third)
    doubled = decide("rollback", expected_champion=third)
    second_step = decide("rollback", expected_champion=second)

    assert (first_step.json()["number"], second_step.json()["number"]) == (second, model)
    assert code_of(doubled) == "champion_changed"
    assert first_step.json()["is_champion"] is True


def test_a_retired_version_keeps_its_record_without_its_files(client, decide, submit, two_models, bucket):
    number = two_models[1]

    answer = decide(f"{number}/retire", drop_weights=True)

    retired = answer.json()
    assert retired["retired_at"] <= retired["weights_dropped_at"]
    assert [(variant["is_published"], len(variant["sha256"])) for variant in retired["variants"]] == [(False, 64)]
    assert [line["action"] for line in retired["ledger"]] == ["retired", "weights_dropped"]
    assert code_of(client.get(f"/v1/models/{number}/files/fp32")) == "model_weights_dropped"
    assert code_of(submit({"a.png": f"s3://{bucket}/a.png"}, model_version=number)) == "model_weights_dropped"
    assert code_of(decide(f"{number}/promote")) == "model_weights_dropped"


def test_files_that_a_job_needs_stay(decide, submit, model, publish_model, bucket):
    number = publish_model()
    submit({"a.png": f"s3://{bucket}/a.png"}, model_version=number)

    answer = decide(f"{number}/retire", drop_weights=True)

    assert (answer.status_code, code_of(answer)) == (409, "model_in_use")


def test_a_file_can_be_had_under_the_address_that_is_given(client, model):
    file = client.get(f"/v1/models/{model}/files/fp32").json()

    body = httpx.get(file["url"], trust_env=False)
    assert body.content == b"version 1"
    assert hashlib.sha256(body.content).hexdigest() == file["sha256"]
    assert (file["file_name"], file["size_bytes"]) == ("model-1-fp32.onnx", len(body.content))
    assert body.headers["Content-Disposition"] == 'attachment; filename="model-1-fp32.onnx"'


@pytest.mark.parametrize(
    ("path", "refusal"),
    [
        pytest.param("1/files/int8", (409, "model_variant_unavailable"), id="no such variant"),
        pytest.param("9/files/fp32", (404, "model_version_not_found"), id="no such version"),
        pytest.param("1/files/fp64", (422, "invalid_request"), id="no such precision"),
    ],
)
def test_a_file_that_is_not_there_is_told_by_name(client, model, path, refusal):
    answer = client.get(f"/v1/models/{path}")

    assert (answer.status_code, code_of(answer)) == refusal


def test_two_versions_are_compared_image_by_image(client, model, publish_model, score):
    second = publish_model()
    score(model, 8, 8, 2)
    score(second, 6, 8, 5)

    found = client.get("/v1/models/compare", params={"a": model, "b": second}).json()
    same = client.get("/v1/models/compare", params={"a": model, "b": second, "dataset": "steel@1"}).json()

    assert [(image["name"], round(image["difference"], 3)) for image in found["images"]] == [
        ("1.png", -0.2),
        ("2.png", 0.0),
        ("3.png", 0.3),
    ]
    assert (found["dataset"], found["would_promote"]) == ("steel@1", False)
    assert found["figures"]["difference"]["mean"] == pytest.approx(0.1 / 3)
    assert {check["name"]: check["holds"] for check in found["checks"]}["mean"] is True
    assert same == found


@pytest.mark.parametrize(
    ("query", "refusal"),
    [
        pytest.param({"a": 1, "b": 2}, (422, "scores_not_comparable"), id="never scored"),
        pytest.param({"a": 1, "b": 1}, (422, "scores_not_comparable"), id="one version"),
        pytest.param({"a": 1, "b": 9}, (404, "model_version_not_found"), id="no such version"),
        pytest.param({"a": 1, "b": 2, "dataset": "wood"}, (404, "dataset_not_found"), id="no such dataset"),
        pytest.param({"a": 1}, (422, "invalid_request"), id="one number"),
    ],
)
@pytest.mark.usefixtures("two_models")
def test_what_cannot_be_compared_is_told_by_name(client, query, refusal):

    answer = client.get("/v1/models/compare", params=query)

    assert (answer.status_code, code_of(answer)) == refusal


def test_history_answers_for_any_moment(client, decide, model, publish_model):
    second = publish_model()
    decide(f"{second}/promote")
    back, first = client.get("/v1/models/history").json()["items"]

    def at(moment):
        return client.get("/v1/models/history", params={"as_of": moment}).json()

    began = datetime.fromisoformat(first["created_at"])
    assert at(first["created_at"])["in_service"] == first
    assert at(first["created_at"])["items"] == [first]
    assert at((began - timedelta(microseconds=1)).isoformat())["in_service"] is None
    assert at(back["created_at"])["in_service"]["model_version"] == second
    assert at("2126-01-01T00:00:00+05:00")["in_service"] == back


@pytest.mark.parametrize(
    ("moment", "in_service"),
    [
        pytest.param("0001-01-01T00:00:00+14:00", None, id="before the calendar in UTC"),
        pytest.param("9999-12-31T23:59:59-14:00", 1, id="after the calendar in UTC"),
    ],
)
@pytest.mark.usefixtures("model")
def test_history_answers_at_both_ends_of_time(client, moment, in_service):
    line = client.get("/v1/models/history", params={"as_of": moment}).json()["in_service"]

    assert (line and line["model_version"]) == in_service


@pytest.mark.parametrize("moment", ["2026-11-23T02:00:00", "yesterday"], ids=["no time zone", "no time"])
def test_a_moment_must_be_clear(client, moment):
    answer = client.get("/v1/models/history", params={"as_of": moment})

    assert (answer.status_code, code_of(answer)) == (422, "invalid_request")


def test_history_is_walked_once(client, decide, walk, model, publish_model):
    for _ in range(2):
        decide(f"{publish_model()}/promote")

    assert [line["model_version"] for line in walk("/v1/models/history", limit=1)] == [3, 2, 1]


def test_events_are_listed_newest_first_and_by_kind(client, decide, walk, model, publish_model):
    decide(f"{publish_model()}/promote")
    decide("rollback")

    every = walk("/v1/events", limit=1)
    promoted = walk("/v1/events", kind="model.promoted")

    assert [event["kind"] for event in every] == ["model.rolled_back", "model.promoted", "model.promoted"]
    assert [event["subject"] for event in promoted] == ["model:2", "model:1"]
    assert every[0]["severity"] == "warning"
    assert code_of(client.get("/v1/events", params={"kind": "No Kind"})) == "invalid_request"


def test_an_import_is_asked_for_once_its_file_is_stored(client, score, store):
    options = {"threshold": 0.4, "input_size_wh": [256, 128], "dataset": "steel", "architecture": "Unet"}
    wanted = {"sha256": SHA256, "file_name": "plain.onnx", "options": options, "actor": "ann"}
    early = client.post("/v1/model-imports", json=wanted)
    store()

    answer = client.post("/v1/model-imports", json=wanted)

    asked = answer.json()
    assert (early.status_code, code_of(early)) == (404, "object_not_found")
    assert answer.status_code == 201
    assert (asked["state"], asked["model_version"], asked["error"], asked["actor"]) == ("pending", None, None, "ann")
    assert asked["options"] == options | {"dataset": "steel@1"}
    assert client.get(f"/v1/model-imports/{asked['id']}").json() == asked


def test_a_refused_import_says_why(client, services, store, walk):
    store()
    wanted = {"sha256": SHA256, "file_name": "plain.onnx", "actor": "ann"}
    ids = [client.post("/v1/model-imports", json=wanted).json()["id"] for _ in range(2)]
    claimed = claim_import(database=services.database, import_id=ids[0], lease_s=60)
    fail_import(database=services.database, claimed=claimed, error=ModelNotOnnx("plain.onnx is a text file."))

    refused = client.get(f"/v1/model-imports/{ids[0]}").json()

    assert (refused["state"], refused["attempts"]) == ("failed", 1)
    assert refused["error"] == {"code": "model_not_onnx", "message": "plain.onnx is a text file."}
    assert [found["id"] for found in walk("/v1/model-imports", limit=1)] == ids[::-1]


@pytest.mark.parametrize(
    ("given", "refusal"),
    [
        pytest.param({"sha256": "x"}, (422, "invalid_request"), id="no hash"),
        pytest.param({"options": {"threshold": 0}}, (422, "invalid_request"), id="a threshold of zero"),
        pytest.param({"options": {"colour": "red"}}, (422, "invalid_request"), id="an unknown option"),
        pytest.param({"options": {"dataset": "wood"}}, (404, "dataset_not_found"), id="no such dataset"),
        pytest.param({"sha256": hashlib.sha256(bytes(5000)).hexdigest()}, (422, "model_too_large"), id="too large"),
    ],
)
def test_an_import_that_cannot_work_is_refused_at_once(client, store, given, refusal):
    store()
    store(bytes(5000))

    answer = client.post(
        "/v1/model-imports", json={"sha256": SHA256, "file_name": "plain.onnx", "actor": "ann"} | given
    )

    assert (answer.status_code, code_of(answer)) == refusal
    assert client.get("/v1/model-imports").json()["items"] == []


def test_an_unknown_import_is_not_found(client):
    answer = client.get("/v1/model-imports/9")

    assert (answer.status_code, code_of(answer)) == (404, "model_import_not_found")
