"""Requests drawn from an OpenAPI document: mostly as it says, and now and then not.

Written by hand for what our own document uses. It knows nothing of what the requests mean.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from hypothesis import strategies as st

JsonSchema = Mapping[str, Any]
Strategy = st.SearchStrategy[Any]

#: Beyond every column, below every row, and those that there may be. No test may come across a token's own id.
_IDS = st.sampled_from([-1, 0, 1, 2, 2**31, 2**63 - 1, 2**63, 10**30])
#: What a careless or hostile program might put anywhere.
JUNK: Strategy = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(st.characters(), max_size=30),
    st.lists(st.integers(), max_size=3),
    st.dictionaries(st.text(max_size=5), st.integers(), max_size=3),
)
#: One segment of a path; a slash would lead elsewhere, and a number might be the id of a token in use.
_SEGMENTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/"), min_size=1, max_size=20).filter(
    lambda text: text not in {".", ".."} and not text.strip().isnumeric()
)


@dataclass(frozen=True)
class Drawn:
    """A request."""

    method: str
    path: str
    query: list[tuple[str, str]]
    headers: dict[str, str] = field(default_factory=dict)
    content: bytes | None = None
    files: dict[str, Any] | None = None

    def sent_by(self, client):
        headers = {name: value.encode() for name, value in self.headers.items()}
        return client.request(
            self.method, self.path, params=self.query, headers=headers, content=self.content, files=self.files
        )


class Requests:
    """Draws requests for the operations of a document."""

    def __init__(self, document: JsonSchema) -> None:
        self._document = document

    def of(self, method: str, path: str, operation: JsonSchema) -> st.SearchStrategy[Drawn]:
        return st.composite(self._draw)(method, path, operation)

    def _draw(self, draw, method, path, operation):
        query, headers = [], {}
        for parameter in operation.get("parameters", []):
            name, schema = parameter["name"], parameter["schema"]
            if parameter["in"] == "path":
                value = draw(st.one_of(self._segment(schema), self._segment(schema), _SEGMENTS))
                path = path.replace("{" + name + "}", quote(str(value), safe=""))
            elif parameter.get("required") or draw(st.booleans()):
                value = draw(st.one_of(self.values(schema), st.text(st.characters(exclude_categories=["Cs"]))))
                text = value if isinstance(value, str) else json.dumps(value)
                if parameter["in"] == "query":
                    query.append((name, text))
                elif text.isascii() and text.isprintable():
                    headers[name] = text
        content, files = None, None
        if "requestBody" in operation:
            ((media_type, body),) = operation["requestBody"]["content"].items()
            if media_type == "application/json":
                value = draw(st.one_of(self.values(body["schema"]), self.values(body["schema"]), JUNK))
                content = json.dumps(value).encode()
                headers["Content-Type"] = "application/json"
            else:
                files = {"file": ("a.png", draw(st.binary(max_size=200)))}
        return Drawn(method, path, query, headers, content, files)

    def _segment(self, schema: JsonSchema) -> Strategy:
        return _IDS if schema.get("type") == "integer" else self.values(schema).filter(lambda value: value != "")

    def values(self, schema: JsonSchema) -> Strategy:
        """Values that a schema allows, its examples among them; what it says in words is not kept."""
        if "$ref" in schema:
            name = schema["$ref"].rpartition("/")[2]
            return st.deferred(lambda: self.values(self._document["components"]["schemas"][name]))
        examples = [st.just(example) for example in schema.get("examples", [])]
        for key in ("anyOf", "oneOf"):
            if key in schema:
                return st.one_of(*examples, *map(self.values, schema[key]))
        if "enum" in schema:
            return st.sampled_from(schema["enum"])
        if "const" in schema:
            return st.just(schema["const"])
        drawn = getattr(self, f"_{schema.get('type', 'any')}")(schema)
        return st.one_of(*examples, drawn)

    def _any(self, _schema):
        return JUNK

    def _null(self, _schema):
        return st.none()

    def _boolean(self, _schema):
        return st.booleans()

    def _integer(self, schema):
        low = max(schema.get("minimum", -(2**70)), schema.get("exclusiveMinimum", -(2**70)))
        return st.integers(low, schema.get("maximum", 2**70))

    def _number(self, schema):
        limits = schema.get("minimum", schema.get("exclusiveMinimum")), schema.get("maximum")
        return st.floats(*limits, allow_nan=False, allow_infinity=False)

    def _string(self, schema):
        longest = schema.get("maxLength", 60)
        if "pattern" in schema:
            return st.from_regex(schema["pattern"]).filter(lambda text: len(text) <= longest)
        if schema.get("format") == "date-time":
            return st.datetimes(timezones=st.timezones()).map(lambda moment: moment.isoformat())
        return st.text(min_size=schema.get("minLength", 0), max_size=longest)

    def _array(self, schema):
        if "prefixItems" in schema:
            return st.tuples(*map(self.values, schema["prefixItems"])).map(list)
        most = min(schema.get("maxItems", 3), 3)
        return st.lists(self.values(schema.get("items", {})), min_size=schema.get("minItems", 0), max_size=most)

    def _object(self, schema):
        fields = {name: self.values(field) for name, field in schema.get("properties", {}).items()}
        if not fields:
            further = schema.get("additionalProperties")
            values = self.values(further) if isinstance(further, dict) else JUNK
            return st.dictionaries(st.text(max_size=10), values, max_size=3)
        needed = {name: value for name, value in fields.items() if name in schema.get("required", [])}
        return st.fixed_dictionaries(
            needed, optional={name: value for name, value in fields.items() if name not in needed}
        )
