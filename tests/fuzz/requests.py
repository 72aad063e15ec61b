"""Requests to the real application: every route of its schema, with damaged bodies, parameters and headers."""

from __future__ import annotations

import json
import logging
from contextlib import contextmanager
from urllib.parse import quote

import structlog
from fastapi.testclient import TestClient

from api.app import create_app
from defectoscope.settings import Settings
from tests.fuzz.mutations import HOSTILE_VALUES, mutate, mutate_json
from tests.fuzz.seeds import seeds_of
from tests.fuzz.targets import Violation, draw_bytes
from tests.tokens import bearer, make_token

BASE_URL = "http://127.0.0.1:8000"
_ERROR_KEYS = {"code", "message", "details", "request_id"}
_IDS = ("1", "2", "0", "-1", "99999999999999999999", "a", "latest", "..", "\0", "ü", "%", "1e3", "a" * 3000)
_KEYS = ("a", "", " ", "a b", "x" * 300, "\xff", "idempotency-1")
_SERVER_ERROR = 500
_CLIENT_ERROR = 400


@contextmanager
def requests(settings):
    """The application over real servers.

    Args:
        settings: of the process, as JSON-ready values.
    """
    logging.disable(logging.CRITICAL)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    app = create_app(Settings.model_validate(settings))
    # The ids that are drawn belong to other tokens, which may be revoked.
    *_, token = [make_token(settings["database"]["url"]) for _ in range(3)]
    with TestClient(app, base_url=BASE_URL, headers=bearer(token)) as client:
        routes = list(_routes(client.app.openapi()))

        def run(rng):
            method, path, request = _draw(rng, routes)
            answer = client.request(method, path, **request)
            return _judge(method, path, answer)

        yield run


def _judge(method, path, answer):
    if answer.status_code < _CLIENT_ERROR:
        return str(answer.status_code)
    body = answer.json() if answer.headers.get("content-type", "").startswith("application/json") else {}
    if set(body.get("error", ())) != _ERROR_KEYS:
        raise Violation(f"{method} {path[:100]!r} answers {answer.status_code} in words that are not ours")
    if answer.status_code >= _SERVER_ERROR:
        raise Violation(f"{method} {path[:100]!r} answers {answer.status_code} {body['error']['code']}")
    return f"{answer.status_code} {body['error']['code']}"


def _routes(schema):
    """Yield method, path, query parameters and an example of the body, None where it takes none."""
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            if any("text/event-stream" in answer.get("content", {}) for answer in operation["responses"].values()):
                continue
            content = operation.get("requestBody", {}).get("content", {})
            example = None
            if "application/json" in content:
                example = _example(content["application/json"]["schema"], schema["components"]["schemas"])
            names = [entry["name"] for entry in operation.get("parameters", []) if entry["in"] == "query"]
            yield method.upper(), path, names, example, "multipart/form-data" in content


def _example(part, schemas):
    """Make a body from the examples of a schema, or from its properties where it gives none."""
    if "$ref" in part:
        part = schemas[part["$ref"].rpartition("/")[2]]
    if examples := part.get("examples") or ([part["example"]] if "example" in part else []):
        return examples[0]
    return {name: _example(inner, schemas) for name, inner in part.get("properties", {}).items()} or "text"


def _draw(rng, routes):
    method, path, names, example, takes_file = rng.choice(routes)
    while "{" in path:
        start, end = path.index("{"), path.index("}")
        path = path[:start] + quote(rng.choice(_IDS), safe="") + path[end + 1 :]
    request = {"headers": {}}
    if rng.random() < 0.4:
        query = {name: _as_text(rng.choice(HOSTILE_VALUES)) for name in names if rng.random() < 0.5}
        path += "".join(
            f"{'&' if number else '?'}{name}={quote(value[:3000], safe='', errors='replace')}"
            for number, (name, value) in enumerate(query.items())
        )
    if rng.random() < 0.1:
        request["headers"]["Idempotency-Key"] = rng.choice(_KEYS).encode("latin-1")
    if takes_file:
        name = rng.choice(("a.png", "", "\r\n.png", "x" * 300))
        request["files"] = {rng.choice(("file", "file", "file", "other")): (name, draw_bytes("images", rng))}
    elif example is not None or rng.random() < 0.05:
        request["headers"]["Content-Type"] = "application/json"
        request["content"] = _draw_body(rng, example if example is not None else {})
    return method, path, request


def _draw_body(rng, example):
    if rng.random() < 0.02:
        return rng.choice(
            (b"[" * 100_000, b'{"a":' * 50_000, b'{"name": ' + b"9" * 100_000 + b"}", b'"' + b"\\u0000" * 9)
        )
    value = mutate_json(rng, example) if rng.random() < 0.9 else example
    body = json.dumps(value).encode()
    return mutate(rng, body, [body, seeds_of("images")[0]]) if rng.random() < 0.25 else body


def _as_text(value):
    return value if isinstance(value, str) else json.dumps(value)
