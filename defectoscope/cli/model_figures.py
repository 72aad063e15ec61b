"""Figures of a model version in words, rounded to what they say; it reads answers of the API and prints nothing."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from defectoscope.cli.output import Cell

_SHA256 = re.compile(r"[0-9a-f]{64}")
_CHOSEN_BY = {"iou": "by the largest mean IoU", "cost": "by the least cost"}


def describe_operating_point(point: Mapping[str, Any] | None) -> dict[str, Cell]:
    """Return how threshold and minimum area were chosen, and both error rates there; nothing where it is unknown."""
    if not point:
        return {}
    by = _CHOSEN_BY.get(str(point.get("objective")), "")
    return {
        "settings chosen": f"on validation {by}".rstrip() if point.get("tuned", True) else "not on validation",
        "": point.get("note"),
        "escapes": _rate(point.get("escape_rate"), of="defective images called clean"),
        "false calls": _rate(point.get("false_call_rate"), of="clean images called defective"),
    }


def describe_figures(figures: Mapping[str, Any] | None) -> dict[str, Cell]:
    """Return figures as names and values for people: nested names joined, lists of plain values in one cell."""
    told: dict[str, Cell] = {}
    for name, value in (figures or {}).items():
        title = name.replace("_", " ")
        if isinstance(value, dict):
            told.update({f"{title}, {inner}": cell for inner, cell in describe_figures(value).items()})
        elif isinstance(value, list):
            told[title] = ", ".join(str(_short(entry)) for entry in value) or None
        else:
            told[title] = _short(value)
    return told


def _rate(rate: Mapping[str, Any] | None, *, of: str) -> Cell:
    """Return a rate with its 95 % interval; unknown where no image could tell."""
    if rate is None:
        return "unknown: validation holds no such images"
    return f"{rate['mean']:.1%} ({rate['low']:.1%} to {rate['high']:.1%}) of {rate['images']} {of}"


def _short(value: Any) -> Cell:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str) and _SHA256.fullmatch(value):
        return value[:12] + "…"
    return f"{value:.4g}" if isinstance(value, float) else value
