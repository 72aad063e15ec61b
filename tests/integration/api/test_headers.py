"""What every answer tells a browser, and that stored files are saved and never shown."""

from __future__ import annotations

import pytest

CLOSED = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        pytest.param("GET", "/healthz", 200, id="a probe"),
        pytest.param("GET", "/v1/jobs", 200, id="an answer"),
        pytest.param("GET", "/openapi.json", 200, id="the document"),
        pytest.param("GET", "/v1/jobs/99", 404, id="an error of ours"),
        pytest.param("GET", "/nothing", 404, id="no route"),
        pytest.param("PUT", "/v1/jobs", 405, id="a wrong method"),
        pytest.param("POST", "/v1/jobs", 422, id="an invalid request"),
    ],
)
def test_every_answer_is_no_page_and_is_not_kept(client, method, path, status):
    answer = client.request(method, path)

    assert answer.status_code == status
    assert {name: answer.headers[name] for name in CLOSED} == CLOSED
    assert answer.headers["Content-Security-Policy"] == "default-src 'none'; frame-ancestors 'none'; sandbox"
    assert answer.headers["Cache-Control"] == "no-store"


def test_a_refusal_at_the_door_has_them_too(client):
    answer = client.get("/v1/jobs", headers={"Authorization": "", "Host": "evil.example"})

    assert answer.status_code == 403
    assert {name: answer.headers[name] for name in CLOSED} == CLOSED


def test_stored_files_are_attachments_under_types_of_our_own(client, inspected):
    _, images = inspected
    result = client.get("/v1/results", params={"image": images["a.png"]["id"]}).json()["items"][0]
    files = {
        f"/v1/images/{images['a.png']['id']}/content": "image/png",
        f"/v1/results/{result['id']}/mask": "image/png",
        f"/v1/results/{result['id']}/overlay": "image/jpeg",
    }

    for path, media_type in files.items():
        answer = client.get(path)

        assert answer.status_code == 200, path
        assert answer.headers["Content-Type"] == media_type
        assert answer.headers["Content-Disposition"].startswith('attachment; filename="')
        assert answer.headers["Content-Security-Policy"] == "default-src 'none'; sandbox"
        assert {name: answer.headers[name] for name in CLOSED} == CLOSED
