"""Reads JSON that others wrote and takes values out of it by kind; nothing about its shape is believed."""

from __future__ import annotations

import json
import math
from pathlib import Path

from defectoscope.errors.datasets import AnnotationFileInvalid


def read_json(path: Path) -> object:
    """Read a JSON file.

    Raises:
        AnnotationFileInvalid: it cannot be read, or is not JSON.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as exc:
        raise AnnotationFileInvalid(f"{path.name} cannot be read: {exc.strerror}.") from exc
    except UnicodeDecodeError as exc:
        raise AnnotationFileInvalid(f"{path.name} is not text in UTF-8.") from exc
    try:
        value: object = json.loads(text)
    except RecursionError as exc:
        raise AnnotationFileInvalid(f"{path.name} is nested too deeply to be an annotation file.") from exc
    except ValueError as exc:
        raise AnnotationFileInvalid(f"{path.name} is not JSON ({exc}).") from exc
    return value


def as_dict(value: object) -> dict[str, object]:
    """Return an object's members; empty for anything else."""
    return value if isinstance(value, dict) else {}


def as_list(value: object) -> list[object]:
    """Return a list; empty for anything else."""
    return value if isinstance(value, list) else []


def as_text(value: object) -> str | None:
    """Return text that is not empty, None for anything else."""
    return value if isinstance(value, str) and value else None


def as_number(value: object) -> float | None:
    """Return a finite number, None for anything else (JSON as Python reads it may say NaN and Infinity)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def as_size(value: object) -> int | None:
    """Return a whole number of 1 or more, None for anything else."""
    number = as_number(value)
    return int(number) if number is not None and number >= 1 and number == int(number) else None
