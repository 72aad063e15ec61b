"""All errors together: who reads a code of another process, or writes the page of all, needs every class loaded."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from operator import attrgetter
from pkgutil import iter_modules
from typing import Any

from defectoscope.errors import DefectoscopeError, __path__

for _module in iter_modules(__path__, "defectoscope.errors."):
    importlib.import_module(_module.name)


def descendants(error: type[DefectoscopeError]) -> Iterator[type[DefectoscopeError]]:
    """Yield every class below an error, depth first, by subject whichever of them was imported first."""
    for child in sorted(error.__subclasses__(), key=attrgetter("__module__")):
        yield child
        yield from descendants(child)


def classes_by_code() -> dict[str, type[DefectoscopeError]]:
    """Return every class by its code."""
    return {kind.code: kind for kind in descendants(DefectoscopeError)}


def to_json(error: DefectoscopeError) -> dict[str, Any]:
    """Return an error in the form in which another process of ours reads it."""
    return {"code": error.code, "message": error.message, "details": error.details}


def from_json(told: Mapping[str, Any], *, unknown: type[DefectoscopeError]) -> DefectoscopeError:
    """Return the error that another process of ours has raised, of its own class; of ``unknown`` for a foreign code."""
    return classes_by_code().get(told["code"], unknown)(told["message"], **told["details"])
