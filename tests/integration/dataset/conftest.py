"""Labelled images as rows, and a way to make dataset revisions of them."""

from __future__ import annotations

import hashlib

import pytest

from defectoscope.database import Split
from defectoscope.dataset import RevisionEntry, create_revision
from defectoscope.inspection.images import ImageFacts, register_images, register_label
from defectoscope.storage import open_memory


@pytest.fixture
def storage():
    return open_memory()


@pytest.fixture
def make(database, storage):
    """Make a revision of some entries."""

    def create(entries, *, name="parts", **options):
        return create_revision(database=database, storage=storage, name=name, entries=entries, **options)

    return create


@pytest.fixture
def register(database):
    """Register an image with a label, both known by a word, and return the label's id."""

    def add(word, *, look=None, part=None, defect_px=1, label=None):
        sha256 = hashlib.sha256(word.encode()).hexdigest()
        facts = ImageFacts(
            sha256=sha256,
            key=f"image-{word}",
            size_bytes=1,
            width=4,
            height=3,
            format="PNG",
            source_mode="RGB",
            source_uri="s3://b/k",
            part_id=part,
            perceptual_hash=look,
        )
        with database.transaction() as session:
            return register_label(
                session,
                image_id=register_images(session, [facts])[sha256],
                key=f"label-{word}",
                sha256=hashlib.sha256((label or word).encode()).hexdigest(),
                defect_px=defect_px,
                source="test",
            )

    return add


@pytest.fixture
def entry(register):
    """Register a labelled image and return it as an entry named after its word."""

    def build(word, split=None, *, asked_part=None, **facts):
        wish = None if split is None else Split(split)
        return RevisionEntry(label_id=register(word, **facts), name=f"{word}.png", split=wish, part=asked_part)

    return build
