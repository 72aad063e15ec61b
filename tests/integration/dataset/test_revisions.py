from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from defectoscope.database import Split
from defectoscope.dataset import RevisionEntry, find_revision, labelled_images
from defectoscope.errors.datasets import DatasetNotFound, InvalidDataset
from defectoscope.inspection.images import ImageFacts, register_images, register_label


@pytest.fixture
def labelled(database):
    """Six images with a label each, and one more label of the first: (image id, label id)."""
    facts = [
        ImageFacts(
            sha256=f"{number:064}",
            key=f"image-{number}",
            size_bytes=1,
            width=4,
            height=3,
            format="PNG",
            source_mode="RGB",
            source_uri="s3://b/k",
        )
        for number in range(6)
    ]
    with database.transaction() as session:
        ids = register_images(session, facts)
        pairs = [(ids[fact.sha256], f"{number:064}") for number, fact in enumerate(facts)]
        pairs.append((pairs[0][0], "f" * 64))
        return [
            (
                image_id,
                register_label(
                    session, image_id=image_id, key=f"label-{sha256[-1]}", sha256=sha256, defect_px=1, source="test"
                ),
            )
            for image_id, sha256 in pairs
        ]


@pytest.fixture
def store(make, storage):
    return lambda entries, name="parts": make(entries, name=name).revision, storage


def _entry(labelled, number, split=Split.TRAIN, *, name=None):
    return RevisionEntry(label_id=labelled[number][1], name=name or f"{number}.png", split=split)


def _entries(labelled):
    return [_entry(labelled, number, Split.VAL if number == 3 else Split.TRAIN) for number in range(4)]


def test_a_revision_keeps_its_images_labels_and_sides(database, labelled, store):
    create, storage = store

    revision = create(_entries(labelled))

    with database.transaction() as session:
        images = labelled_images(session, revision.id)
        found = find_revision(session, "parts")
    assert (found.id, revision.number, revision.train_count, revision.val_count) == (revision.id, 1, 3, 1)
    assert [(image.name, image.split, image.image_key, image.label_key) for image in images] == [
        ("0.png", Split.TRAIN, "image-0", "label-0"),
        ("1.png", Split.TRAIN, "image-1", "label-1"),
        ("2.png", Split.TRAIN, "image-2", "label-2"),
        ("3.png", Split.VAL, "image-3", "label-3"),
    ]
    assert len(json.loads(storage.get(revision.manifest_key))["items"]) == 4


def test_the_same_set_in_any_order_is_the_same_revision_and_another_set_the_next(labelled, store):
    create, _ = store

    first = create(_entries(labelled))
    again = create(_entries(labelled)[::-1])
    larger = create([*_entries(labelled), _entry(labelled, 4)])
    elsewhere = create(_entries(labelled), "other")

    assert again.id == first.id
    assert (larger.number, elsewhere.number) == (2, 1)


def test_images_of_one_name_keep_their_own_labels(database, labelled, store):
    create, _ = store

    revision = create([_entry(labelled, 1, name="a.png"), _entry(labelled, 2, Split.VAL, name="a.png")])

    with database.transaction() as session:
        images = labelled_images(session, revision.id)
    assert {(image.split, image.image_key, image.label_key) for image in images} == {
        (Split.TRAIN, "image-1", "label-1"),
        (Split.VAL, "image-2", "label-2"),
    }


@pytest.mark.parametrize(
    ("numbers", "word"),
    [
        pytest.param([(0, Split.TRAIN), (1, Split.TRAIN)], "val", id="no-validation-side"),
        pytest.param([(0, Split.VAL)], "train", id="no-training-side"),
        pytest.param([], "train", id="empty"),
        pytest.param([(0, Split.TRAIN), (6, Split.VAL)], "train", id="one-image-with-two-labels"),
    ],
)
def test_a_set_that_cannot_be_trained_on_is_refused(labelled, store, numbers, word):
    create, _ = store

    with pytest.raises(InvalidDataset, match=word):
        create([_entry(labelled, number, split) for number, split in numbers])


def test_an_unknown_label_is_refused(store):
    create, _ = store

    with pytest.raises(InvalidDataset, match="no label 1000"):
        create([RevisionEntry(label_id=1000, name="a.png", split=Split.TRAIN)])


def test_the_same_set_at_the_same_moment_is_one_revision_and_different_sets_have_different_numbers(labelled, store):
    create, _ = store
    sets = [_entries(labelled), _entries(labelled), [*_entries(labelled), _entry(labelled, 4)]]
    together = Barrier(len(sets))

    def create_together(entries):
        together.wait()
        return create(entries)

    with ThreadPoolExecutor(len(sets)) as pool:
        revisions = list(pool.map(create_together, sets))

    assert revisions[0].id == revisions[1].id
    assert sorted({revision.number for revision in revisions}) == [1, 2]


@pytest.mark.parametrize("reference", ["nothing", "parts@2", "parts@x", "parts@-1"])
def test_a_revision_that_does_not_exist_is_told_by_name(database, labelled, store, reference):
    create, _ = store
    create(_entries(labelled))

    with pytest.raises(DatasetNotFound), database.transaction() as session:
        find_revision(session, reference)
