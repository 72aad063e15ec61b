from __future__ import annotations

import socket

import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr

from api.app import create_app
from defectoscope.storage import Buckets, S3Config

BASE_URL = "http://127.0.0.1:8000"
DATABASE_URL = "postgresql+psycopg://user:password@127.0.0.1:{port}/nothing"


@pytest.fixture
def closed_port():
    """A port that was free a moment ago and that nobody listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def changed(settings, section, **values):
    return settings.model_copy(update={section: getattr(settings, section).model_copy(update=values)})


def readiness(settings):
    with TestClient(create_app(settings), base_url=BASE_URL) as client:
        return client.get("/readyz")


def test_the_api_is_ready_when_its_servers_answer(settings):
    answer = readiness(settings)

    assert answer.status_code == 200
    assert answer.json() == {"status": "ready", "checks": {"database": "ok", "queue": "ok", "storage": "ok"}}


@pytest.mark.parametrize(
    ("server", "addressed"),
    [
        pytest.param("database", lambda port: {"url": SecretStr(DATABASE_URL.format(port=port))}, id="database"),
        pytest.param("queue", lambda port: {"url": SecretStr(f"redis://127.0.0.1:{port}/0")}, id="queue"),
        pytest.param("storage", lambda port: {"endpoint_url": f"http://127.0.0.1:{port}"}, id="storage"),
    ],
)
def test_the_server_that_is_away_is_named(settings, closed_port, server, addressed):
    answer = readiness(changed(settings, server, **addressed(closed_port)))

    checks = answer.json()["checks"]
    assert answer.status_code == 503
    assert answer.json()["status"] == "unready"
    assert {name for name, sentence in checks.items() if sentence != "ok"} == {server}
    assert "does not answer" in checks[server]


def test_a_request_that_needs_a_server_that_is_away_says_when_to_try_again(settings, closed_port, admin):
    url = SecretStr(DATABASE_URL.format(port=closed_port))
    app = create_app(changed(settings, "database", url=url))

    with TestClient(app, base_url=BASE_URL, headers=admin) as client:
        answer = client.get("/v1/jobs")

    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "database_unavailable"
    assert int(answer.headers["Retry-After"]) > 0


def test_the_bucket_is_made_at_the_start(settings, connections, bucket):
    own = f"{bucket}-own"

    answer = readiness(changed(settings, "storage", bucket=own))

    buckets = Buckets(
        S3Config(
            endpoint_url=connections.s3_endpoint_url,
            region=connections.s3_region,
            access_key=connections.s3_access_key,
            secret_key=connections.s3_secret_key,
            bucket=own,
        )
    )
    assert answer.status_code == 200
    assert buckets.exists(own)


def test_uploads_are_signed_for_the_address_that_clients_reach(settings, admin):
    seen_from_outside = changed(settings, "storage", public_endpoint_url="https://s3.plant.example")

    with TestClient(create_app(seen_from_outside), base_url=BASE_URL, headers=admin) as client:
        answer = client.post(
            "/v1/uploads", json={"objects": [{"sha256": "ab" * 32, "size_bytes": 3, "content_type": "image/png"}]}
        )

    assert answer.json()["items"][0]["upload"]["url"].startswith(
        f"https://s3.plant.example/{settings.storage.bucket}/objects/"
    )
