"""Requests that cannot be right are refused before anything is looked up."""

from __future__ import annotations

import pytest


def error_of(answer):
    return answer.json()["error"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        pytest.param("GET", "/v1/jobs/0", id="an id that no row has"),
        pytest.param("GET", "/v1/jobs/99999999999999999999", id="an id beyond the column"),
        pytest.param("GET", "/v1/jobs/twelve", id="an id that is no number"),
        pytest.param("GET", "/v1/jobs?limit=0", id="a limit of nothing"),
        pytest.param("GET", "/v1/jobs?limit=1001", id="a limit too high"),
        pytest.param("GET", "/v1/jobs?cursor=abc", id="a made-up cursor"),
        pytest.param("GET", "/v1/jobs?state=sleeping", id="an unknown state"),
        pytest.param("GET", "/v1/images?sha256=12", id="a hash that is none"),
        pytest.param("GET", "/v1/defects?min_probability=nan", id="not a number"),
        pytest.param("GET", "/v1/datasets/steel@zero", id="a reference that is none"),
        pytest.param("POST", "/v1/jobs", id="no body"),
    ],
)
def test_a_request_that_cannot_be_right_names_its_field(client, method, path):
    answer = client.request(method, path)

    assert answer.status_code == 422
    assert error_of(answer)["code"] == "invalid_request"
    assert error_of(answer)["details"]["fields"][0].keys() == {"field", "problem"}


def test_a_body_that_is_no_json_is_refused(client):
    answer = client.post("/v1/jobs", content=b'{"source": ', headers={"Content-Type": "application/json"})

    assert answer.status_code == 422
    assert error_of(answer)["code"] == "invalid_request"


def test_json_under_another_media_type_is_refused(client):
    """A page of another site may send text/plain without asking first."""
    answer = client.post("/v1/uploads", content=b'{"objects": []}', headers={"Content-Type": "text/plain"})

    assert answer.status_code == 422
