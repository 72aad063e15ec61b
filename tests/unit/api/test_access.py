from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from api.access import is_loopback
from api.app import create_app
from defectoscope.settings import ApiSettings, Settings

BASE_URL = "http://127.0.0.1:8000"


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        pytest.param("127.0.0.1", True, id="IPv4"),
        pytest.param("127.8.8.8", True, id="the rest of 127/8"),
        pytest.param("::1", True, id="IPv6"),
        pytest.param("localhost", True, id="by name"),
        pytest.param("0.0.0.0", False, id="every address"),  # noqa: S104 -- refused
        pytest.param("::", False, id="every IPv6 address"),
        pytest.param("192.168.1.7", False, id="the local network"),
        pytest.param("localhost.example.org", False, id="a name that begins so"),
        pytest.param("", False, id="nothing"),
    ],
)
def test_loopback_is_this_machine_only(host, expected):
    assert is_loopback(host) is expected


@pytest.mark.parametrize(
    ("host", "status"),
    [
        pytest.param("127.0.0.1:8000", 200, id="address and port"),
        pytest.param("localhost", 200, id="name"),
        pytest.param("[::1]:8000", 200, id="IPv6"),
        pytest.param("evil.example.org", 403, id="a name that was rebound to loopback"),
        pytest.param("127.0.0.1.evil.example.org", 403, id="a name that looks like an address"),
        pytest.param("[::1", 403, id="a broken header"),
        pytest.param("", 403, id="an empty header"),
    ],
)
def test_only_loopback_host_names_are_answered(client, host, status):
    answer = client.get("/healthz", headers={"Host": host})

    assert answer.status_code == status
    if status == 403:
        assert answer.json()["error"]["code"] == "host_not_allowed"


def test_every_host_name_is_answered_when_remote_access_is_allowed():
    app = create_app(Settings(_env_file=None, api=ApiSettings(host="0.0.0.0", allow_remote=True)))  # noqa: S104

    answer = TestClient(app, base_url="http://defectoscope.plant.example").get("/healthz")

    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("headers", "is_refused"),
    [
        pytest.param({}, False, id="a program"),
        pytest.param({"Sec-Fetch-Site": "same-origin", "Origin": BASE_URL}, False, id="our own page"),
        pytest.param({"Sec-Fetch-Site": "none"}, False, id="the address bar"),
        pytest.param({"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}, True, id="a foreign page"),
        pytest.param({"Sec-Fetch-Site": "same-site", "Origin": "http://127.0.0.1:9"}, True, id="another port"),
        pytest.param({"Origin": "https://evil.example"}, True, id="a foreign page in an old browser"),
        pytest.param({"Origin": "null"}, True, id="a sandboxed page"),
        pytest.param({"Origin": BASE_URL}, False, id="our own page in an old browser"),
    ],
)
def test_a_foreign_page_cannot_change_anything(client, headers, is_refused):
    answer = client.post("/healthz", headers=headers)

    assert answer.json()["error"]["code"] == ("cross_site_request" if is_refused else "method_not_allowed")


def test_a_foreign_page_may_link_here(client):
    answer = client.get("/healthz", headers={"Sec-Fetch-Site": "cross-site"})

    assert answer.status_code == 200
