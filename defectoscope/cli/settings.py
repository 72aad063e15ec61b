"""`defectoscope settings`: every setting with its default and what it means; `docs/settings.md` is made from it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from defectoscope.cli.output import print_json, print_table, say
from defectoscope.cli.session import JsonOption

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

_MARKDOWN_HEAD = """\
# Settings

Every process reads its settings once, when it starts: first from environment variables, then from the connection file
that `defectoscope up` writes for its own machine, then from the defaults below. A change needs a restart. A variable
that is empty counts as not set.

This page is made by `defectoscope settings --format markdown`; a test compares the two.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One setting as it is documented; ``default`` is None where there is none."""

    section: str
    variable: str
    kind: str
    default: str | None
    description: str


def settings(
    form: Annotated[
        Literal["table", "json", "markdown"], typer.Option("--format", help="How they are printed.")
    ] = "table",
    as_json: JsonOption = False,
) -> None:
    """Print every setting with its default and what it means. No value that is set here is shown."""
    known = list(describe_settings())
    match "json" if as_json else form:
        case "json":
            print_json({"items": [asdict(setting) for setting in known]})
        case "markdown":
            sys.stdout.write(to_markdown())
        case _:
            for section, meaning in describe_sections().items():
                say(f"{section}: {meaning}", style="bold")
                print_table(
                    {"variable": "left", "default": "left", "meaning": "left"},
                    [
                        [setting.variable, setting.default, setting.description]
                        for setting in known
                        if setting.section == section
                    ],
                    empty="",
                    indent=2,
                )
                say()


def describe_sections() -> dict[str, str]:
    """Return what each section is about."""
    return {name: " ".join((model.__doc__ or "").split()) for name, model in _sections()}


def describe_settings() -> Iterator[Setting]:
    """Yield every setting, in the order of the models."""
    from defectoscope.settings import ENVIRONMENT_PREFIX

    for section, model in _sections():
        for name, field in model.model_fields.items():
            yield Setting(
                section=section,
                variable=f"{ENVIRONMENT_PREFIX}{section}__{name}".upper(),
                kind=_kind(field),
                default=_default(field),
                description=field.description or "",
            )


def to_markdown() -> str:
    """Return the page of all settings."""
    known = list(describe_settings())
    parts = [_MARKDOWN_HEAD]
    for section, meaning in describe_sections().items():
        parts.append(f"\n## {section}\n\n{meaning}\n\n| Variable | Kind | Default | Meaning |\n|---|---|---|---|\n")
        parts.extend(
            f"| `{setting.variable}` | {_escaped(setting.kind)} | {_code(setting.default)} "
            f"| {_escaped(setting.description)} |\n"
            for setting in known
            if setting.section == section
        )
    return "".join(parts)


def _sections() -> Iterator[tuple[str, type[BaseModel]]]:
    from pydantic import BaseModel

    from defectoscope.settings import Settings

    for name, field in Settings.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield name, field.annotation


def _kind(field: FieldInfo) -> str:
    """Return a type in words for people who do not read Python."""
    text = field.annotation.__name__ if isinstance(field.annotation, type) else str(field.annotation)
    text = text.removeprefix("typing.").replace("pydantic.types.", "").replace(" | None", "")
    if text.startswith(("Literal", "typing.Literal")):
        return " or ".join(part.strip(" '\"") for part in text.partition("[")[2].rstrip("]").split(","))
    names = {
        "int": "whole number",
        "float": "number",
        "str": "text",
        "bool": "true or false",
        "SecretStr": "secret",
        "Path": "path",
        "tuple[str, ...]": "list, comma-separated",
        "tuple[int, ...]": "list, comma-separated",
    }
    return names.get(text, text)


def _default(field: FieldInfo) -> str | None:
    from pathlib import Path

    from platformdirs import user_cache_path

    value = field.get_default(call_default_factory=True, validated_data={})
    if value is None or value == ():
        return None
    if isinstance(value, Path) and value.is_relative_to(user_cache_path("defectoscope")):
        # The page is the same on every machine, the directory is not.
        return f"<user cache>/{value.relative_to(user_cache_path('defectoscope')).as_posix()}"
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _code(text: str | None) -> str:
    return "" if text is None else f"`{text}`"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")
