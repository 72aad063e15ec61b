"""The API over the real servers, with a fresh database, a fresh bucket and, where asked, a published model version."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from api.app import create_app
from defectoscope.errors.storage import ObjectNotFound
from defectoscope.inspection.chunks import claim_next_chunk
from defectoscope.inspection.completion import ItemOutcome, LabelFacts, ResultFacts, complete_chunk
from defectoscope.inspection.images import ImageFacts
from defectoscope.registry import VariantFile, promote_first, publish
from defectoscope.segmentation import Defect, ModelContract, PixelCounts, encode_mask
from defectoscope.settings import ApiSettings
from defectoscope.storage import content_key, put_content
from tests.images import draw_part, encode
from tests.tokens import bearer, make_token

BASE_URL = "http://127.0.0.1:8000"


@pytest.fixture
def api_settings(settings):
    """The settings of the tests, with limits that a test can reach and one more bucket to read from."""
    return settings.model_copy(
        update={
            "inspection": settings.inspection.model_copy(update={"max_image_bytes": 2**20}),
            "storage": settings.storage.model_copy(update={"input_buckets": ("is-missing",)}),
            "api": ApiSettings(max_upload_bytes=2**21, max_model_bytes=4096),
        }
    )


@pytest.fixture
def admin(migrated_url):
    """The header of an admin token, whose name is ann."""
    return bearer(make_token(migrated_url))


@pytest.fixture
def client(api_settings, admin):
    """The API, called by an admin."""
    with TestClient(create_app(api_settings), base_url=BASE_URL, headers=admin) as client:
        yield client


@pytest.fixture
def services(client):
    """The parts that the application under test works with."""
    return client.app.state.services


@pytest.fixture
def publish_model(services, tmp_path):
    """Publish a version whose file is a few bytes: nothing here runs it."""

    def make(*, threshold=0.4, min_area_px=16, **origin):
        def build(contract):
            path = tmp_path / f"{contract.version}.onnx"
            path.write_bytes(f"version {contract.version}".encode())
            return [VariantFile(precision="fp32", path=path, parity={"mask_iou": 1.0})]

        contract = ModelContract(
            input_size_wh=(256, 128),
            resize_policy="stretch",
            threshold=threshold,
            min_area_px=min_area_px,
            class_names=("background", "defect"),
            architecture="DeepLabV3Plus",
            encoder="mobilenet_v2",
            dataset_revision=None,
            version=None,
        )
        return publish(
            database=services.database,
            storage=services.storage,
            contract=contract,
            build=build,
            **{"training_run_id": None, "dataset_revision_id": None, **origin},
        )

    return make


@pytest.fixture
def model(services, publish_model):
    """The number of a published version that is in service."""
    number = publish_model()
    promote_first(database=services.database, number=number, actor="test")
    return number


@pytest.fixture
def upload(client):
    """Upload a drawn part and return what the API says about it."""

    def send(seed=0, **size):
        data = encode(draw_part(seed=seed, **size)[0], "PNG")
        return client.post("/v1/images", files={"file": ("a.png", data)}).json()

    return send


@pytest.fixture
def submit(client):
    """Submit a job of images by address: name to uri, or to uri and label uri."""

    def send(images, *, key=None, **asked):
        listed = [
            {"name": name, **({"uri": uri} if isinstance(uri, str) else {"uri": uri[0], "label_uri": uri[1]})}
            for name, uri in images.items()
        ]
        return client.post(
            "/v1/jobs",
            json={"source": {"kind": "images", "images": listed}, **asked},
            headers={"Idempotency-Key": key} if key else {},
        )

    return send


def found_defect(number, area_px):
    return Defect(
        number=number,
        box_xyxy=(1, 2, 11, 2 + area_px // 10),
        area_px=area_px,
        centroid_xy=(5.5, 4.0),
        major_axis_px=10.0,
        minor_axis_px=3.0,
        orientation_deg=12.0,
        perimeter_px=26.0,
        max_probability=min(1.0, area_px / 100),
        mean_probability=0.5,
        touches_border=False,
    )


@pytest.fixture
def work(services):
    """Do a worker's part for a job: end its images as told, image by image.

    An outcome is an error, or an image of the API with the areas of its defects and perhaps pixel counts.
    """

    def outcome_of(item, told):
        if isinstance(told, Exception):
            return ItemOutcome(item_id=item.item_id, error=told)
        image, areas, counts = (*told, None)[:3]
        mask = encode_mask(draw_part(height=image["height"], width=image["width"])[1] * 255)
        sha256 = put_content(services.storage, mask, content_type="image/png")
        overlay = put_content(services.storage, f"overlay of {item.name}".encode(), content_type="image/jpeg")
        return ItemOutcome(
            item_id=item.item_id,
            image=ImageFacts(
                sha256=image["sha256"],
                key=content_key(image["sha256"]),
                size_bytes=image["size_bytes"],
                width=image["width"],
                height=image["height"],
                format=image["format"],
                source_mode=image["source_mode"],
                source_uri=image["uri"],
            ),
            result=ResultFacts(
                mask_key=content_key(sha256),
                mask_sha256=sha256,
                overlay_key=content_key(overlay) if areas else None,
                defect_px=sum(areas),
                defects=[found_defect(number, area_px) for number, area_px in enumerate(areas, 1)],
                variant="fp32",
                provider="CPUExecutionProvider",
                runtime_version="1.0",
                latency_ms=1.5,
                resize_policy="tile",
                tile_count=6,
                model_scale=1.0,
            ),
            label=counts and LabelFacts(sha256="ab" * 32, key="labels/a.png", defect_px=counts.tp, counts=counts),
        )

    def run(job, told):
        while chunk := claim_next_chunk(database=services.database, owner="test", lease_s=60, max_attempts=3):
            assert chunk.job_id == job["id"]
            outcomes = [outcome_of(item, told[item.name]) for item in chunk.items]
            assert complete_chunk(database=services.database, chunk=chunk, outcomes=outcomes)

    return run


@pytest.fixture
def inspected(upload, submit, work, model):
    """An ended job: two defective images, a clean one, one that failed and one with a label."""
    images = {name: upload(seed) for seed, name in enumerate(["a.png", "b.png", "c.png", "e.png"])}
    addresses = {name: image["uri"] for name, image in images.items()}
    job = submit({**addresses, "d.png": images["a.png"]["uri"] + ".gone"}, mm_per_px=0.5).json()
    outcomes = {
        "a.png": (images["a.png"], [40, 20]),
        "b.png": (images["b.png"], [40]),
        "c.png": (images["c.png"], []),
        "e.png": (images["e.png"], [30], PixelCounts(30, 10, 10, 50)),
    }
    work(job, {**outcomes, "d.png": ObjectNotFound()})
    return job["id"], images


@pytest.fixture
def walk(client):
    """Follow the cursors of a list to its end and return every item seen."""

    def follow(path, **query):
        items, cursor = [], None
        for _ in range(100):
            page = client.get(path, params={**query, **({"cursor": cursor} if cursor else {})}).json()
            items += page["items"]
            cursor = page["next_cursor"]
            if cursor is None:
                return items
        raise AssertionError("the list does not end")

    return follow
