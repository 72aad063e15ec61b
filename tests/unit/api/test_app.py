from __future__ import annotations

import pytest
from fastapi import FastAPI, Request
from fastapi.testclient import TestClient

from api.app import create_app
from api.error_handlers import install_error_handlers
from api.middleware import BodyLimit, RequestContext
from defectoscope.errors.installation import SettingMissing
from defectoscope.settings import ApiSettings, Settings

BASE_URL = "http://127.0.0.1:8000"


def error_of(answer):
    return answer.json()["error"]


def test_the_health_of_the_process_needs_no_server(client):
    answer = client.get("/healthz")

    assert answer.status_code == 200
    assert answer.json() == {"status": "ok", "version": "0.1.0"}


def test_a_plain_request_id_is_kept(client):
    answer = client.get("/healthz", headers={"X-Request-Id": "line-3.42"})

    assert answer.headers["X-Request-Id"] == "line-3.42"


@pytest.mark.parametrize(
    "given",
    [
        pytest.param("a" * 65, id="too long"),
        pytest.param("a b", id="with a space"),
        pytest.param('"><script>', id="markup"),
        pytest.param("", id="empty"),
    ],
)
def test_any_other_request_id_is_replaced(client, given):
    answer = client.get("/healthz", headers={"X-Request-Id": given})

    assert len(answer.headers["X-Request-Id"]) == 32
    assert answer.headers["X-Request-Id"].isalnum()


def test_an_unknown_address_has_the_error_shape(client):
    answer = client.get("/v1/nothing")

    assert answer.status_code == 404
    assert error_of(answer) == {
        "code": "not_found",
        "message": "There is nothing at this address.",
        "details": {"path": "/v1/nothing", "method": "GET"},
        "request_id": answer.headers["X-Request-Id"],
    }


def test_a_wrong_method_has_the_error_shape(client):
    answer = client.put("/v1/jobs")

    assert answer.status_code == 405
    assert answer.headers["Allow"]
    assert error_of(answer)["code"] == "method_not_allowed"


def test_an_unexpected_error_shows_nothing_but_its_id(app):
    @app.get("/broken")
    def broken():
        raise ValueError("the password is 1234")

    answer = TestClient(app, base_url=BASE_URL).get("/broken", headers={"X-Request-Id": "r-9"})

    assert answer.status_code == 500
    assert error_of(answer)["code"] == "unexpected"
    assert error_of(answer)["request_id"] == "r-9"
    assert answer.headers["X-Request-Id"] == "r-9"
    assert "1234" not in answer.text


@pytest.fixture
def small():
    """An application that takes ten bytes, a hundred at /wide, and counts them."""
    app = FastAPI()

    @app.post("/narrow")
    @app.post("/wide")
    async def count(request: Request):
        return len(await request.body())

    install_error_handlers(app)
    app.add_middleware(BodyLimit, limit_bytes=10, limit_bytes_of={"/wide": 100})
    app.add_middleware(RequestContext)
    return TestClient(app)


@pytest.mark.parametrize(
    ("path", "size_bytes", "status"),
    [
        pytest.param("/narrow", 10, 200, id="at the limit"),
        pytest.param("/narrow", 11, 413, id="above the limit"),
        pytest.param("/wide", 100, 200, id="at a limit of its own"),
        pytest.param("/wide", 101, 413, id="above a limit of its own"),
    ],
)
@pytest.mark.parametrize("announced", [pytest.param(True, id="announced"), pytest.param(False, id="streamed")])
def test_a_body_is_read_up_to_its_limit(small, path, size_bytes, status, announced):
    content = b"x" * size_bytes if announced else iter([b"x" * 5, b"x" * (size_bytes - 5)])

    answer = small.post(path, content=content)

    assert answer.status_code == status
    if status == 413:
        assert error_of(answer)["code"] == "request_too_large"


def test_the_api_does_not_listen_to_other_machines_unasked():
    settings = Settings(_env_file=None, api=ApiSettings(host="0.0.0.0"))  # noqa: S104 -- refused

    with pytest.raises(SettingMissing, match="ALLOW_REMOTE"):
        create_app(settings)


def test_the_api_does_not_listen_to_other_machines_without_tokens():
    settings = Settings(_env_file=None, api=ApiSettings(allow_remote=True, require_token=False))

    with pytest.raises(SettingMissing, match="REQUIRE_TOKEN"):
        create_app(settings)
