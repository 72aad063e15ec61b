"""Labels and immutable dataset revisions."""

from __future__ import annotations

from defectoscope.dataset.revisions import (
    LabelledImage,
    RevisionEntry,
    create_revision,
    find_revision,
    labelled_images,
)

__all__ = ["LabelledImage", "RevisionEntry", "create_revision", "find_revision", "labelled_images"]
