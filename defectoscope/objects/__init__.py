"""Stored objects and the rows that point at them: which there are, which may go, and how they go safely.

The database is the only pointer to an object: one that no row points at is nobody's and is deleted after a time of
grace. Everything that the system writes into its bucket lies under one of these prefixes; what lies elsewhere in the
bucket was put there by somebody else and is never touched.

==================================== ============================================ ====================================
objects                              written by                                   kept for
==================================== ============================================ ====================================
``datasets/SHA.json``                manifests of dataset revisions: the API      ``dataset_revisions.manifest_key``
``masks/SH/SHA.png``                 masks, equal ones once: workers              ``results.mask_key``
``models/SHA.onnx, .safetensors``    files of model versions: trainers            ``model_variants.key``,
                                                                                  ``model_versions.weights_key``
``objects/sha256/SH/SHA``            originals, label files, given models,        ``images.key``, ``labels.key``,
                                     archives, manifests of jobs: clients by      ``model_imports.key``; before a row
                                     signed uploads, the API, workers (images     of those is there the addresses in
                                     from elsewhere, members of archives)         ``job_items`` and ``jobs.source``,
                                                                                  and ``object_leases``
``overlays/SH/SHA/vN-MASK.jpg``      overlays: workers                            ``results.overlay_key``
``training/RUN/checkpoints/T-E.*``   the last checkpoint of a run: trainers       ``training_runs.checkpoint``
``training/RUN/report-T.html``       the page of a run: trainers                  ``training_runs.report_key``
==================================== ============================================ ====================================

Hashes (SHA) are SHA-256 of the content, except that an overlay stands under the hash of its image. `kinds.py` is this
table as code. `collection.py` deletes, `retention.py` says what rows point at no more, and `safekeeping.py` is what
every writer calls so that nothing is deleted under its hands; why that is safe stands there. Nothing here reads what an
object holds.
"""

from __future__ import annotations

from defectoscope.objects.collection import Collection, collect, survey
from defectoscope.objects.history import sum_collections
from defectoscope.objects.kinds import KINDS, Kind, kind_of, list_pointed
from defectoscope.objects.retention import apply_rules, count_given_up
from defectoscope.objects.safekeeping import confirm_stored, keeping_all, lease_objects, own_key

__all__ = [
    "KINDS",
    "Collection",
    "Kind",
    "apply_rules",
    "collect",
    "confirm_stored",
    "count_given_up",
    "keeping_all",
    "kind_of",
    "lease_objects",
    "list_pointed",
    "own_key",
    "sum_collections",
    "survey",
]
