"""The API over the real servers, with a fresh database, a fresh bucket and one published model version."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from api.app import create_app
from defectoscope.database.migrate import upgrade
from defectoscope.registry import VariantFile, promote_first, publish
from defectoscope.segmentation import ModelContract
from defectoscope.settings import ApiSettings, DatabaseSettings, InspectionSettings, QueueSettings, Settings
from defectoscope.settings import StorageSettings

BASE_URL = "http://127.0.0.1:8000"


@pytest.fixture
def settings(connections, database_url, bucket):
    upgrade(database_url)
    return Settings(
        _env_file=None,
        database=DatabaseSettings(url=database_url),
        # A prefix of its own: what one test sends, no other sees.
        queue=QueueSettings(url=connections.queue_url, key_prefix=f"{bucket}:"),
        storage=StorageSettings(
            endpoint_url=connections.s3_endpoint_url,
            region=connections.s3_region,
            access_key=connections.s3_access_key,
            secret_key=connections.s3_secret_key,
            bucket=bucket,
        ),
        inspection=InspectionSettings(max_image_bytes=2**20),
        api=ApiSettings(max_upload_bytes=2**21),
    )


@pytest.fixture
def client(settings):
    with TestClient(create_app(settings), base_url=BASE_URL) as client:
        yield client


@pytest.fixture
def services(client):
    """The parts the application under test works with."""
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
            input_size_wh=(256, 256),
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
