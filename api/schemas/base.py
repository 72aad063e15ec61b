"""What every body on the wire has in common: nothing unknown is accepted, text is clean, numbers are numbers."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Generic, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler, StringConstraints
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

#: Ids and counts fit the database's columns.
LARGEST_INTEGER = 2**63 - 1

Id = Annotated[int, Field(ge=1, le=LARGEST_INTEGER)]
Count = Annotated[int, Field(ge=0, le=LARGEST_INTEGER)]
#: Lower-case hexadecimal.
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
#: No control characters: text ends up in logs, terminals and a database that refuses NUL.
Text = Annotated[str, StringConstraints(min_length=1, max_length=1024, pattern=r"^[^\x00-\x1f\x7f]+$")]
#: An address in object storage. What follows the bucket is checked where it is read.
Uri = Annotated[
    str, StringConstraints(max_length=1100, pattern=r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[^\x00-\x1f\x7f]*)?$")
]
#: UTC, ISO 8601.
Moment = datetime


class Body(BaseModel):
    """Base of every body."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def example(cls) -> Any:
        """Return the example that the OpenAPI document shows; None where the class has none."""
        extra = cls.model_config.get("json_schema_extra")
        examples = extra.get("examples") if isinstance(extra, dict) else None
        return examples[0] if isinstance(examples, list) else None


Item = TypeVar("Item", bound=Body)


class Page(Body, Generic[Item]):
    """A page of a list. `next_cursor` is null on the last one."""

    items: list[Item]
    next_cursor: str | None

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Show a page that holds the example of its items."""
        schema = handler(core_schema)
        [item] = cls.__pydantic_generic_metadata__["args"]
        handler.resolve_ref_schema(schema)["examples"] = [{"items": [item.example()], "next_cursor": "41"}]
        return schema


def shows(example: Any) -> ConfigDict:
    """Return the configuration of a body that has an example in the OpenAPI document."""
    return ConfigDict(json_schema_extra={"examples": [example]})


class Problem(Body):
    """Why something failed: a stable code for programs, a sentence for people."""

    model_config = shows({"code": "image_truncated", "message": "The image data ends early or is damaged."})

    code: str
    message: str

    @classmethod
    def of(cls, code: str | None, message: str | None) -> Self | None:
        """Return a problem, or None where there is no code."""
        return None if code is None else cls(code=code, message=message or "")
