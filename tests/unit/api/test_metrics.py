from __future__ import annotations

import json

import pytest
from fastapi.testclient import TestClient

from api.metrics import REGISTRY

BASE_URL = "http://127.0.0.1:8000"


def count(method, route, status):
    labels = {"method": method, "route": route, "status": status}
    return REGISTRY.get_sample_value("defectoscope_http_request_seconds_count", labels) or 0


@pytest.mark.parametrize(
    ("method", "path", "counted_as"),
    [
        pytest.param("GET", "/healthz", ("GET", "/healthz", "200"), id="a plain route"),
        pytest.param("GET", "/v1/jobs/twelve", ("GET", "/v1/jobs/{job_id}", "401"), id="a route with an id"),
        pytest.param("GET", "/v1/jobs/0", ("GET", "/v1/jobs/{job_id}", "401"), id="another id of the same route"),
        pytest.param("GET", "/v1/nothing/1", ("GET", "none", "404"), id="no route"),
        pytest.param("POST", "/healthz", ("POST", "/healthz", "405"), id="a wrong method"),
        pytest.param("PUT", "/v1/jobs", ("PUT", "/v1/jobs", "405"), id="a wrong method of a route with a prefix"),
        pytest.param("BREW", "/nothing", ("other", "none", "404"), id="a method of the caller's own"),
    ],
)
def test_a_request_is_counted_by_its_route_and_not_by_its_path(client, method, path, counted_as):
    before = count(*counted_as)

    client.request(method, path)

    assert count(*counted_as) == before + 1


def test_a_refused_request_is_counted_too(client):
    before = count("GET", "none", "403")

    client.get("/healthz", headers={"Host": "evil.example"})

    assert count("GET", "none", "403") == before + 1


def test_an_unexpected_error_is_counted_as_ours(app):
    @app.get("/broken/{number}")
    def broken(number: int):
        raise ValueError(number)

    before = count("GET", "/broken/{number}", "500")

    TestClient(app, base_url=BASE_URL).get("/broken/5")

    assert count("GET", "/broken/{number}", "500") == before + 1


def test_the_api_serves_no_figures_on_its_own_port(app, client):
    assert client.get("/metrics").status_code == 404
    assert "/metrics" not in json.dumps(app.openapi()["paths"])
