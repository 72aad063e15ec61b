"""Whatever is sent, the answer is one of ours and never a 500."""

from __future__ import annotations

import pytest

ERROR_KEYS = {"code", "message", "details", "request_id"}
J = {"Content-Type": "application/json"}
IMAGE = b'{"name":"a","uri":"s3://line-3/a"}'


REQUESTS = {
    "null": ("POST", "/v1/jobs", {"content": b"null", "headers": J}),
    "a list": ("POST", "/v1/jobs", {"content": b"[]", "headers": J}),
    "text": ("POST", "/v1/jobs", {"content": b'"job"', "headers": J}),
    "no UTF-8": ("POST", "/v1/jobs", {"content": b'{"name": "\xff"}', "headers": J}),
    "another encoding": ("POST", "/v1/jobs", {"content": '{"name": "a"}'.encode("utf-16"), "headers": J}),
    "deep nesting": ("POST", "/v1/jobs", {"content": b"[" * 200_000, "headers": J}),
    "a deep recipe": (
        "POST",
        "/v1/training-runs",
        {"content": b'{"dataset":"a","config":{"a":' + b"[" * 500 + b"]" * 500 + b"}}", "headers": J},
    ),
    "an endless number": ("POST", "/v1/jobs", {"content": b'{"threshold": ' + b"9" * 10_000 + b"}", "headers": J}),
    "an infinite number": (
        "POST",
        "/v1/jobs",
        {"content": b'{"threshold":1e999,"source":{"kind":"images","images":[' + IMAGE + b"]}}", "headers": J},
    ),
    "the same key twice": (
        "POST",
        "/v1/jobs",
        {"content": b'{"source":{"kind":"images","kind":"folder","images":[]}}', "headers": J},
    ),
    "an idempotency key with a space": ("POST", "/v1/jobs", {"json": {}, "headers": {"Idempotency-Key": "a b"}}),
    "NUL in a path": ("GET", "/v1/datasets/a%00b", {}),
    "a path that climbs": ("GET", "/v1/datasets/..%2f..%2fetc", {}),
    "NUL in a query": ("GET", "/v1/images?sha256=%00", {}),
    "broken escapes in a query": ("GET", "/v1/jobs?state=%ff%zz", {}),
    "an empty cursor": ("GET", "/v1/jobs?cursor=", {}),
    "a negative cursor": ("GET", "/v1/jobs?cursor=-1", {}),
    "digits of another script": ("GET", "/v1/jobs?cursor=%D9%A1", {}),
    "a file name of control characters": ("POST", "/v1/images", {"files": {"file": ("\r\n\x00.png", b"x")}}),
    "a thousand files": ("POST", "/v1/images", {"files": [("file", ("a", b"x"))] * 1100}),
    "SQL in a reference": ("GET", "/v1/datasets/a'%20OR%201=1--", {}),
    "a surrogate in a recipe": (
        "POST",
        "/v1/training-runs",
        {"content": b'{"dataset":"a","config":{"a":"\\ud800"}}', "headers": J},
    ),
    "a moment as a number": ("GET", "/v1/models/history?as_of=1e300", {}),
    "a version too large": ("GET", "/v1/models/compare?a=1&b=99999999999999999999", {}),
    "a surrogate in a reason": (
        "POST",
        "/v1/models/1/promote",
        {"content": b'{"actor":"a","reason":"\\ud800"}', "headers": J},
    ),
    "a lone surrogate as a file name": (
        "POST",
        "/v1/model-imports",
        {"content": b'{"actor":"a","file_name":"\\udfff","sha256":"' + b"0" * 64 + b'"}', "headers": J},
    ),
    "NUL in a source of labels": (
        "POST",
        "/v1/labels",
        {
            "json": {
                "source": "a\x00",
                "entries": [{"name": "a", "image_uri": "s3://line-3/a", "label_uri": "s3://line-3/a"}],
            }
        },
    ),
}


@pytest.mark.usefixtures("model")
def test_every_hostile_request_is_refused_in_our_words(client):
    answers = {name: client.request(method, path, **request) for name, (method, path, request) in REQUESTS.items()}

    assert {name: answer.status_code for name, answer in answers.items() if answer.status_code not in {404, 422}} == {}
    assert {name for name, answer in answers.items() if set(answer.json()["error"]) != ERROR_KEYS} == set()
