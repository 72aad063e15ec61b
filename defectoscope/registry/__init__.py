"""Model versions, their files, their evaluations, and which of them is in service."""

from __future__ import annotations

from defectoscope.registry.comparison import Comparison, compare, gate_images
from defectoscope.registry.evaluations import (
    Candidate,
    ImageEvaluation,
    best_candidates,
    find_best_ever,
    find_evaluation,
    record_evaluation,
)
from defectoscope.registry.files import fetch_variant, fetch_weights
from defectoscope.registry.history import champion_as_of, find_decision, history
from defectoscope.registry.imports import (
    ClaimedImport,
    claim_import,
    complete_import,
    fail_import,
    reconcile_imports,
    release_import,
    renew_import,
    request_import,
)
from defectoscope.registry.ledger import ANY, promote, promote_first, refuse
from defectoscope.registry.publishing import VariantFile, publish
from defectoscope.registry.retirement import retire
from defectoscope.registry.rollback import rollback
from defectoscope.registry.versions import DEFAULT_SCOPE, champion_or_none, find_champion, find_file, find_version

__all__ = [
    "ANY",
    "DEFAULT_SCOPE",
    "Candidate",
    "ClaimedImport",
    "Comparison",
    "ImageEvaluation",
    "VariantFile",
    "best_candidates",
    "champion_as_of",
    "champion_or_none",
    "claim_import",
    "compare",
    "complete_import",
    "fail_import",
    "fetch_variant",
    "fetch_weights",
    "find_best_ever",
    "find_champion",
    "find_decision",
    "find_evaluation",
    "find_file",
    "find_version",
    "gate_images",
    "history",
    "promote",
    "promote_first",
    "publish",
    "reconcile_imports",
    "record_evaluation",
    "refuse",
    "release_import",
    "renew_import",
    "request_import",
    "retire",
    "rollback",
]
