"""Labels, immutable dataset revisions and the split that never changes."""

from __future__ import annotations

from defectoscope.dataset.queries import LabelledImage, find_revision, labelled_images, new_labels_since
from defectoscope.dataset.revisions import VAL_FRACTION, CreatedRevision, RevisionEntry, create_revision
from defectoscope.dataset.similarity import perceptual_hash
from defectoscope.dataset.splits import Move, MoveCode

__all__ = [
    "VAL_FRACTION",
    "CreatedRevision",
    "LabelledImage",
    "Move",
    "MoveCode",
    "RevisionEntry",
    "create_revision",
    "find_revision",
    "labelled_images",
    "new_labels_since",
    "perceptual_hash",
]
