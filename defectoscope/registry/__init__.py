"""Model versions, their files, their evaluations, and which of them is in service."""

from __future__ import annotations

from defectoscope.registry.files import fetch_variant
from defectoscope.registry.versions import (
    DEFAULT_SCOPE,
    ImageEvaluation,
    VariantFile,
    find_champion,
    find_version,
    promote,
    promote_first,
    publish,
)

__all__ = [
    "DEFAULT_SCOPE",
    "ImageEvaluation",
    "VariantFile",
    "fetch_variant",
    "find_champion",
    "find_version",
    "promote",
    "promote_first",
    "publish",
]
