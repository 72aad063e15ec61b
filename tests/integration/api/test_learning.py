from __future__ import annotations

import hashlib

import httpx
import pytest

from defectoscope.errors.training import TrainingFailed
from defectoscope.registry import ImageEvaluation, promote
from defectoscope.samples import draw_sample
from defectoscope.samples.generate import encode_image, encode_label
from defectoscope.segmentation import PixelCounts
from defectoscope.training import claim_run, complete_run, fail_run, record_figures, record_metrics
from tests.images import draw_part, encode


def code_of(answer):
    return answer.json()["error"]["code"]


def as_read(answer):
    """The revision that was made, as it is read later: without what its maker was told."""
    return {name: value for name, value in answer.json().items() if name != "moves"}


@pytest.fixture
def label(client, services):
    """Put labelled images into storage and register them: name to (height, width) of image and of label."""

    def register(sizes, source="dataset:steel"):
        entries = []
        for seed, (name, (image_hw, label_hw)) in enumerate(sizes.items()):
            pixels, _ = draw_part(seed=seed, height=image_hw[0], width=image_hw[1])
            _, class_mask = draw_part(seed=seed, height=label_hw[0], width=label_hw[1])
            services.storage.put(f"in/{name}", encode(pixels, "PNG"), content_type="image/png")
            services.storage.put(f"labels/{name}", encode(class_mask * 255, "PNG"), content_type="image/png")
            entries.append(
                {
                    "name": name,
                    "image_uri": services.uri(f"in/{name}"),
                    "label_uri": services.uri(f"labels/{name}"),
                }
            )
        return client.post("/v1/labels", json={"source": source, "entries": entries}).json()["items"]

    return register


@pytest.fixture
def steel(client, label):
    """Two labelled images, one on each side."""
    labelled = label({"a.png": ((48, 64), (48, 64)), "b.png": ((32, 32), (32, 32))})
    return [
        {"label_id": entry["label_id"], "name": entry["name"], "split": split}
        for entry, split in zip(labelled, ["train", "val"], strict=True)
    ]


@pytest.fixture
def dataset(client, steel):
    return as_read(client.post("/v1/datasets", json={"name": "steel", "entries": steel}))


def test_labels_are_registered_with_their_images(client, label):
    items = label({"a.png": ((48, 64), (48, 64))})

    image = client.get(f"/v1/images/{items[0]['image_id']}").json()
    assert items[0]["error"] is None
    assert (image["width"], image["height"]) == (64, 48)
    assert image["source_uri"].endswith("/in/a.png")
    assert label({"a.png": ((48, 64), (48, 64))}) == items


def test_a_pair_that_cannot_be_used_does_not_hold_up_the_others(client, services, label):
    label({"a.png": ((48, 64), (48, 64))})
    good = {"image_uri": services.uri("in/a.png"), "label_uri": services.uri("labels/a.png")}
    services.storage.put("in/text.png", b"text", content_type="image/png")
    entries = [
        {**good, "name": "other size", "label_uri": services.uri("labels/b.png")},
        {**good, "name": "no image", "image_uri": services.uri("in/text.png")},
        {**good, "name": "no label", "label_uri": services.uri("in/text.png")},
        {**good, "name": "gone", "image_uri": services.uri("in/gone.png")},
        {**good, "name": "not ours", "image_uri": "s3://not-ours/a.png"},
        {**good, "name": "too big", "image_uri": services.uri("in/big.png")},
        {**good, "name": "good"},
    ]
    services.storage.put("labels/b.png", encode(draw_part(height=10)[1] * 255, "PNG"), content_type="image/png")
    services.storage.put("in/big.png", bytes(2**20 + 1), content_type="image/png")

    answer = client.post("/v1/labels", json={"source": "dataset:steel", "entries": entries})

    items = answer.json()["items"]
    assert answer.status_code == 200
    assert {item["name"]: (item["error"] or {}).get("code") for item in items} == {
        "other size": "label_size_mismatch",
        "no image": "image_not_recognised",
        "no label": "invalid_label",
        "gone": "object_not_found",
        "not ours": "bucket_not_allowed",
        "too big": "image_too_large",
        "good": None,
    }
    assert [bool(item["label_id"]) for item in items] == [False] * 6 + [True]
    assert items[0]["error"]["message"] == "The label is 64 x 10 pixels and the image 64 x 48."


def test_a_dataset_becomes_a_numbered_revision(client, steel):
    answer = client.post("/v1/datasets", json={"name": "steel", "entries": steel})

    dataset = answer.json()
    assert answer.status_code == 201
    assert (dataset["reference"], dataset["train_count"], dataset["val_count"]) == ("steel@1", 1, 1)
    assert (dataset["groups"], dataset["moves"]) == (2, [])
    assert client.get("/v1/datasets/steel").json() == as_read(answer)
    assert client.get("/v1/datasets/steel@1").json() == as_read(answer)


def test_an_unchanged_set_is_the_revision_it_was(client, steel, dataset):
    again = client.post("/v1/datasets", json={"name": "steel", "entries": steel[::-1]})

    assert again.status_code == 200
    assert as_read(again) == dataset


def test_a_changed_set_is_the_next_revision(client, walk, label, steel, dataset):
    [third] = label({"c.png": ((20, 20), (20, 20))})
    entries = [*steel, {"label_id": third["label_id"], "name": "c.png", "split": "train"}]

    changed = client.post("/v1/datasets", json={"name": "steel", "entries": entries})
    back = client.post("/v1/datasets", json={"name": "steel", "entries": steel})

    assert (changed.status_code, changed.json()["reference"]) == (201, "steel@2")
    assert (back.status_code, as_read(back)) == (200, dataset)
    assert client.get("/v1/datasets/steel").json() == as_read(changed)
    assert walk("/v1/datasets", limit=1) == [as_read(changed), dataset]


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda entries: entries[:1], id="a side without images"),
        pytest.param(lambda entries: [*entries, {**entries[0], "label_id": 999, "name": "x"}], id="an unknown label"),
        pytest.param(
            lambda entries: [*entries, {**entries[0], "name": "x", "split": "val"}], id="one image on both sides"
        ),
    ],
)
def test_a_set_that_cannot_be_trained_on_is_refused(client, steel, spoil):
    answer = client.post("/v1/datasets", json={"name": "steel", "entries": spoil(steel)})

    assert (answer.status_code, code_of(answer)) == (422, "invalid_dataset")


@pytest.fixture
def samples(client, services):
    """Store drawn samples that differ from each other, and register them: stem to label id."""

    def register(numbers, *, encoder=None, suffix="", **facts):
        entries = []
        for number in numbers:
            sample = draw_sample(seed=5, number=number)
            name = f"{number}{suffix}.png"
            services.storage.put(f"in/{name}", (encoder or encode_image)(sample), content_type="image/png")
            services.storage.put(f"labels/{name}", encode_label(sample), content_type="image/png")
            entries.append(
                {
                    "name": name,
                    "image_uri": services.uri(f"in/{name}"),
                    "label_uri": services.uri(f"labels/{name}"),
                    **facts,
                }
            )
        answer = client.post("/v1/labels", json={"source": "dataset:drawn", "entries": entries}).json()
        return [{"label_id": item["label_id"], "name": item["name"]} for item in answer["items"]]

    return register


def test_a_copy_of_a_validation_image_is_moved_and_reported(client, samples):
    first = samples(range(4))
    copies = samples([0, 1], suffix="-copy", encoder=lambda sample: encode(sample.pixels, "JPEG", quality=60))
    splits = ["val", "train", "train", "train"]
    client.post(
        "/v1/datasets",
        json={
            "name": "drawn",
            "entries": [{**entry, "split": split} for entry, split in zip(first, splits, strict=True)],
        },
    )

    answer = client.post(
        "/v1/datasets",
        json={"name": "drawn", "extends": True, "entries": [{**copy, "split": "train"} for copy in copies]},
    )

    dataset = answer.json()
    assert (dataset["reference"], dataset["train_count"], dataset["val_count"], dataset["groups"]) == (
        "drawn@2",
        4,
        2,
        4,
    )
    assert dataset["moves"] == [
        {
            "name": "0-copy.png",
            "split": "val",
            "code": "duplicate_of_validation",
            "message": "It looks the same as 0.png, which is in validation.",
        }
    ]


def test_images_of_one_part_stay_together_whether_labels_or_entries_name_it(client, samples, walk):
    by_label = samples(range(3), part="tile-1")
    by_entry = [{**entry, "part": "tile-2"} for entry in samples(range(3, 6))]

    dataset = client.post("/v1/datasets", json={"name": "drawn", "entries": [*by_label, *by_entry]}).json()

    sides = {}
    for item in walk("/v1/datasets/drawn/items", limit=2):
        sides.setdefault(item["group"], set()).add(item["split"])
    assert dataset["groups"] == 2
    assert sorted(sides) == ["part:tile-1", "part:tile-2"]
    assert sorted(map(tuple, sides.values())) == [("train",), ("val",)]


def test_the_items_of_a_dataset_can_be_fetched(client, samples, walk):
    client.post("/v1/datasets", json={"name": "drawn", "entries": samples(range(5))})

    items = walk("/v1/datasets/drawn@1/items", limit=2)

    assert sorted(item["name"] for item in items) == [f"{number}.png" for number in range(5)]
    for item in items:
        sample = draw_sample(seed=5, number=int(item["name"].removesuffix(".png")))
        height, width = sample.class_mask.shape
        assert (item["width"], item["height"]) == (width, height)
        for which in ("image", "label"):
            data = httpx.get(item[f"{which}_url"]).content
            assert hashlib.sha256(data).hexdigest() == item[f"{which}_sha256"]


def test_the_items_of_an_unknown_dataset_are_not_found(client):
    answer = client.get("/v1/datasets/copper/items")

    assert (answer.status_code, code_of(answer)) == (404, "dataset_not_found")


@pytest.mark.parametrize("val_fraction", [0, 1, -0.1, "much"])
def test_a_share_that_is_none_is_refused(client, steel, val_fraction):
    answer = client.post("/v1/datasets", json={"name": "steel", "entries": steel, "val_fraction": val_fraction})

    assert (answer.status_code, code_of(answer)) == (422, "invalid_request")


@pytest.mark.parametrize("reference", ["copper", "steel@2"])
def test_an_unknown_dataset_is_not_found(client, dataset, reference):
    looked_up = client.get(f"/v1/datasets/{reference}")
    trained_on = client.post("/v1/training-runs", json={"dataset": reference})

    assert (looked_up.status_code, code_of(looked_up)) == (404, "dataset_not_found")
    assert (trained_on.status_code, code_of(trained_on)) == (404, "dataset_not_found")


def test_a_training_run_is_recorded_as_asked(client, dataset):
    config = {"preset": "quick", "epochs": 3, "input_size_wh": [128, 64], "encoder_weights": None}

    answer = client.post("/v1/training-runs", json={"dataset": "steel", "config": config})

    run = answer.json()
    assert answer.status_code == 201
    assert (run["state"], run["dataset"], run["config"]) == ("pending", "steel@1", config)
    assert (run["model_version"], run["metrics"], run["error"], run["started_at"]) == (None, [], None, None)
    assert run["figures"] is None
    assert client.get(f"/v1/training-runs/{run['id']}").json() == run


def test_a_training_run_shows_its_epochs_and_its_model(client, services, dataset, publish_model):
    run_id = client.post("/v1/training-runs", json={"dataset": "steel"}).json()["id"]
    claimed = claim_run(database=services.database, run_id=run_id, owner="test", lease_s=60)
    for epoch in (1, 2):
        values = {"train_loss": float("nan") if epoch == 2 else 1.0, "val_iou_defect": 0.5}
        record_metrics(database=services.database, run=claimed, epoch=epoch, values=values)
    record_figures(database=services.database, run=claimed, figures={"encoder_weights_used": "random"})
    number = publish_model(training_run_id=run_id, dataset_revision_id=dataset["id"])
    complete_run(database=services.database, run=claimed)

    run = client.get(f"/v1/training-runs/{run_id}").json()

    assert (run["state"], run["model_version"]) == ("succeeded", number)
    assert run["metrics"] == [
        {"epoch": 1, "values": {"train_loss": 1.0, "val_iou_defect": 0.5}},
        {"epoch": 2, "values": {"train_loss": None, "val_iou_defect": 0.5}},
    ]
    assert run["figures"] == {"encoder_weights_used": "random"}
    assert run["started_at"] <= run["finished_at"]


def test_training_runs_are_walked_once_newest_first(client, services, dataset, walk):
    ids = [client.post("/v1/training-runs", json={"dataset": "steel"}).json()["id"] for _ in range(3)]
    claimed = claim_run(database=services.database, run_id=ids[1], owner="test", lease_s=60)
    fail_run(database=services.database, run=claimed, error=TrainingFailed("Out of memory."))

    runs = walk("/v1/training-runs", limit=1)

    assert [run["id"] for run in runs] == ids[::-1]
    assert [run["state"] for run in runs] == ["pending", "failed", "pending"]
    assert runs[1]["error"] == {"code": "training_failed", "message": "Out of memory."}


def test_an_unknown_training_run_is_not_found(client):
    answer = client.get("/v1/training-runs/999")

    assert (answer.status_code, code_of(answer)) == (404, "training_run_not_found")


def test_a_model_version_shows_its_contract_and_scores(client, services, dataset, label, publish_model):
    images = label({"x.png": ((20, 20), (20, 20)), "y.png": ((24, 24), (24, 24))})
    counts = [PixelCounts(10, 0, 0, 90), PixelCounts(10, 10, 20, 60)]
    evaluation = [
        ImageEvaluation(image_id=image["image_id"], counts=count) for image, count in zip(images, counts, strict=True)
    ]
    number = publish_model(dataset_revision_id=dataset["id"], evaluation=evaluation)

    model = client.get(f"/v1/models/{number}").json()

    assert (model["architecture"], model["encoder"], model["input_size_wh"]) == (
        "DeepLabV3Plus",
        "mobilenet_v2",
        [256, 128],
    )
    assert (model["threshold"], model["min_area_px"], model["dataset"]) == (0.4, 16, "steel@1")
    assert model["is_champion"] is False
    assert [(variant["precision"], variant["parity"]) for variant in model["variants"]] == [("fp32", {"mask_iou": 1.0})]
    assert model["validation"]["images"] == 2
    assert model["validation"]["pooled"]["iou_defect"] == pytest.approx(20 / 50)
    assert model["validation"]["mean"]["iou_defect"] == pytest.approx((1 + 10 / 40) / 2)
    assert model["validation"]["mean"]["iou_background"] == pytest.approx((1 + 60 / 90) / 2)


def test_the_champion_is_marked_among_all_versions(client, services, model, publish_model, walk):
    second = publish_model()
    promote(database=services.database, number=second, actor="test", reason="better", figures={})
    third = publish_model()

    models = walk("/v1/models", limit=1)

    assert [(entry["number"], entry["is_champion"]) for entry in models] == [
        (third, False),
        (second, True),
        (model, False),
    ]
    assert models[0]["validation"] is None


def test_an_unknown_model_version_is_not_found(client):
    answer = client.get("/v1/models/999")

    assert (answer.status_code, code_of(answer)) == (404, "model_version_not_found")
