"""The OpenAPI document is what others program against: every body has an example, every route its scope."""

from __future__ import annotations

import importlib
import json
import pkgutil

import pytest

from api import schemas
from api.access import SCOPE_KEY, AccessScope
from api.app import create_app
from api.schemas.base import Body, Page
from api.schemas.errors import ErrorOut
from defectoscope.settings import Settings

DOCUMENT = create_app(Settings(_env_file=None)).openapi()
OPERATIONS = {
    f"{method.upper()} {path}": operation
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
}
BODIES = [
    member
    for module in pkgutil.iter_modules(schemas.__path__)
    for member in vars(importlib.import_module(f"api.schemas.{module.name}")).values()
    if isinstance(member, type) and issubclass(member, Body) and member not in {Body, Page}
]

#: What only an admin may look at.
FOR_ADMINS = {
    "GET /v1/tokens",
    "GET /v1/audit",
    "GET /v1/webhooks",
    "GET /v1/webhooks/{webhook_id}",
    "GET /v1/webhooks/{webhook_id}/deliveries",
    "GET /v1/webhooks/{webhook_id}/deliveries/{delivery_id}",
}


def resolve(schema):
    return DOCUMENT["components"]["schemas"][schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema


def example_of(schema):
    """The example of a body, or those of its fields where it has none as a whole."""
    resolved = resolve(schema)
    if "examples" in resolved:
        return resolved["examples"][0]
    return {name: field["examples"][0] for name, field in resolved["properties"].items()}


def bodies_of(operation):
    answers = operation["responses"].values()
    for content in [operation.get("requestBody", {}), *answers]:
        for media_type, body in content.get("content", {}).items():
            if media_type in {"application/json", "multipart/form-data"}:
                yield body


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
def test_every_request_and_response_has_an_example(operation):
    for body in bodies_of(operation):
        assert example_of(body["schema"])


@pytest.mark.parametrize("body", dict.fromkeys(BODIES), ids=lambda body: body.__name__)
def test_every_example_is_a_valid_body(body):
    example = body.example()

    parsed = body.model_validate_json(json.dumps(example))

    assert parsed.model_dump(mode="json", exclude_unset=True) == example


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
def test_every_operation_says_what_errors_look_like(operation):
    schema = operation["responses"]["default"]["content"]["application/json"]["schema"]

    assert schema == {"$ref": "#/components/schemas/ErrorOut"}


@pytest.mark.parametrize("name", [name for name in OPERATIONS if " /v1/" in name])
def test_every_v1_route_declares_its_scope(name):
    scope = OPERATIONS[name][SCOPE_KEY]

    assert scope in set(AccessScope)
    assert (scope == "viewer") == (name.startswith("GET") and name not in FOR_ADMINS)
    assert OPERATIONS[name]["security"] == [{"token": []}]


def test_the_document_says_how_a_token_is_sent():
    scheme = DOCUMENT["components"]["securitySchemes"]["token"]

    assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")


def test_an_error_is_as_the_document_says(client):
    answer = client.get("/v1/nothing")

    assert ErrorOut.model_validate(answer.json()).error.code == "not_found"
