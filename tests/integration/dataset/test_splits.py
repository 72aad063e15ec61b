"""The split on PostgreSQL: sides are for ever and for all datasets, whoever imports what, when and how often."""

from __future__ import annotations

import json
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from threading import Barrier

import numpy as np
import pytest
from sqlalchemy import select

from defectoscope.database import DatasetItem, Image, Split, SplitAssignment
from defectoscope.dataset import MoveCode, labelled_images, new_labels_since
from defectoscope.errors.datasets import InvalidDataset

LOOK_A, LOOK_B = 0x00FF_00FF_00FF_00FF, 0x0F0F_0F0F_0F0F_0F0F


@pytest.fixture
def sides(database):
    """Read the side of each image of a revision, by name without the suffix."""

    def read(created):
        with database.transaction() as session:
            items = labelled_images(session, created.revision.id)
        return {item.name.removesuffix(".png"): item.split.value for item in items}

    return read


@pytest.fixture
def assignments(database):
    """Read all sides that are kept: object key of the image to side, group and reason."""

    def read():
        with database.transaction() as session:
            rows = session.execute(
                select(Image.key, SplitAssignment.split, SplitAssignment.group_key, SplitAssignment.reason).join(
                    Image, Image.id == SplitAssignment.image_id
                )
            )
            return {key.removeprefix("image-"): (split.value, group, reason) for key, split, group, reason in rows}

    return read


def _told(created):
    return [(move.name.removesuffix(".png"), move.split.value, move.code) for move in created.moves]


@pytest.mark.parametrize("seed", range(6))
def test_no_image_group_or_part_ever_changes_sides_over_many_imports(make, entry, assignments, database, seed):
    rng = np.random.default_rng(seed)
    words = [f"{at}" for at in range(24)]
    looks = {word: [None, LOOK_A, LOOK_A ^ 3, LOOK_B, LOOK_B ^ 5][rng.integers(5)] for word in words}
    parts = {word: [None, None, "p", "q"][rng.integers(4)] for word in words}
    history = []
    for turn in range(6):
        entries = [
            entry(word, [None, "train", "val"][rng.integers(3)], look=looks[word], part=parts[word])
            for word in rng.choice(words, 8, replace=False).tolist()
        ]
        make(
            [*entries, entry(f"train-{turn}", "train"), entry(f"val-{turn}", "val")],
            name=["steel", "brass"][rng.integers(2)],
            extends=bool(rng.integers(2)),
        )
        history.append(assignments())

    for before, after in pairwise(history):
        assert before.items() <= after.items()
    by_group = defaultdict(set)
    for word, (split, group, _) in history[-1].items():
        by_group[group].add(split)
        if parts.get(word) is not None:
            by_group["part of", parts[word]].add(split)
    assert [group for group, splits in by_group.items() if len(splits) > 1] == []
    with database.transaction() as session:
        crossed = session.execute(
            select(DatasetItem.image_id)
            .join(SplitAssignment, SplitAssignment.image_id == DatasetItem.image_id)
            .where((DatasetItem.split != SplitAssignment.split) | (DatasetItem.group_key != SplitAssignment.group_key))
        ).all()
    assert crossed == []


def test_a_side_is_kept_in_every_dataset_and_the_caller_is_told(make, entry, sides):
    make([entry("a", "train"), entry("b", "val")], name="steel")

    other = make([entry("a", "val"), entry("b"), entry("c", "train")], name="brass")

    assert sides(other) == {"a": "train", "b": "val", "c": "train"}
    assert [(move.name, move.code, move.message) for move in other.moves] == [
        ("a.png", MoveCode.SPLIT_KEPT, "It has been in training before and stays there.")
    ]


def test_a_copy_of_a_validation_image_goes_to_validation_and_is_reported_by_name(make, entry, sides, assignments):
    make([entry("a", "train"), entry("b", "val", look=LOOK_A)])

    later = make([entry("c", "train", look=LOOK_A ^ 3), entry("d", look=LOOK_B)], extends=True)

    assert sides(later) == {"a": "train", "b": "val", "c": "val", "d": "train"}
    assert [(move.name, move.split, move.code, move.message) for move in later.moves] == [
        (
            "c.png",
            Split.VAL,
            MoveCode.DUPLICATE_OF_VALIDATION,
            "It looks the same as b.png, which is in validation.",
        )
    ]
    kept = assignments()
    assert kept["c"][1] == kept["b"][1]
    assert [kept[word][2] for word in "abcd"] == ["given", "given", "near_duplicate", "drawn"]


def test_a_copy_of_a_training_image_cannot_become_validation(make, entry, sides):
    make([entry("a", "train", look=LOOK_A), entry("b", "val")])

    later = make([entry("c", "val", look=LOOK_A ^ 3), entry("d", "val")], extends=True)

    assert sides(later)["c"] == "train"
    assert _told(later) == [("c", "train", MoveCode.DUPLICATE_OF_TRAINING)]


def test_images_of_one_part_stay_together_over_imports(make, entry, sides, assignments):
    first = make([entry("a", asked_part="p"), entry("b", asked_part="q"), entry("c", asked_part="p")])
    again = make([entry("d", asked_part="p"), entry("e", part="q")], extends=True)

    side = sides(again)
    assert side["a"] == side["c"] == side["d"]
    assert side["b"] == side["e"] != side["a"]
    assert (first.revision.group_count, again.revision.group_count) == (2, 2)
    assert {group for _, group, _ in assignments().values()} == {"part:p", "part:q"}
    assert again.moves == []


def test_a_part_that_becomes_known_later_binds_the_images_that_come_then(make, entry, sides):
    make([entry("a", "val"), entry("b", "train")])
    make([entry("a", "val", asked_part="p"), entry("b", "train")])

    later = make([entry("c", "train", part="p")], extends=True)

    assert sides(later)["c"] == "val"
    assert _told(later) == [("c", "val", MoveCode.DUPLICATE_OF_VALIDATION)]


def test_an_image_twice_in_a_request_is_kept_once_and_validation_wins(make, entry, sides):
    created = make(
        [entry("a", "train"), entry("a", "val", label="other"), entry("b", "train"), entry("b", label="third")]
    )

    assert sides(created) == {"a": "val", "b": "train"}
    assert _told(created) == [("a", "val", MoveCode.IMAGE_TWICE), ("b", "train", MoveCode.IMAGE_TWICE)]


def test_a_share_is_drawn_and_made_up_for_by_later_imports(make, entry, sides):
    first = make([entry(f"{at}", "train") for at in range(20)] + [entry("v", "val")])
    later = make([entry(f"{at}") for at in range(20, 25)], extends=True)

    drawn = [side for word, side in sides(later).items() if word not in sides(first)]
    assert sorted(drawn) == ["train", *["val"] * 4]


def test_sides_are_drawn_evenly_with_and_without_defects(make, entry, sides):
    created = make([entry(f"{at}", defect_px=at % 2) for at in range(30)])

    side = sides(created)
    assert sum(side[f"{at}"] == "val" for at in range(0, 30, 2)) == 3
    assert sum(side[f"{at}"] == "val" for at in range(1, 30, 2)) == 3


def test_a_refused_set_leaves_no_side_behind(make, entry, assignments):
    with pytest.raises(InvalidDataset, match="no val image"):
        make([entry("a", "train"), entry("b", "train")])

    assert assignments() == {}


def test_extending_keeps_what_there_was_and_takes_the_newer_label(make, entry, database, storage):
    first = make([entry("a", "train"), entry("b", "val")])

    newer = entry("a", label="redrawn")
    second = make([newer, entry("c", "train")], extends=True)
    unchanged = make([newer], extends=True)

    with database.transaction() as session:
        labels = {image.name: image.label_id for image in labelled_images(session, second.revision.id)}
    assert sorted(labels) == ["a.png", "b.png", "c.png"]
    assert labels["a.png"] == newer.label_id
    assert (second.is_new, unchanged.is_new) == (True, False)
    assert unchanged.revision.id == second.revision.id != first.revision.id


def test_extending_nothing_is_a_first_revision(make, entry):
    created = make([entry("a", "train"), entry("b", "val")], extends=True)

    assert (created.revision.number, created.is_new, created.moves) == (1, True, [])


def test_a_manifest_is_the_same_bytes_for_the_same_set_and_names_the_groups(make, entry, storage):
    entries = [entry("a", "train", part="p"), entry("b", "val"), entry("c", "train", look=LOOK_A)]

    created = make(entries)
    again = make(entries[::-1])
    without_wishes = make([replace(one, split=None, part=None) for one in entries])

    items = json.loads(storage.get(created.revision.manifest_key))["items"]
    assert [(item["name"], item["split"]) for item in items] == [
        ("a.png", "train"),
        ("b.png", "val"),
        ("c.png", "train"),
    ]
    assert items[0]["group"] == "part:p"
    assert items[1]["group"] == f"image:{items[1]['image_sha256']}"
    assert again.revision.id == without_wishes.revision.id == created.revision.id


@pytest.mark.parametrize("turn", range(3))
def test_imports_at_the_same_moment_agree_on_sides(make, entry, assignments, turn):
    words = [f"{turn}-{at}" for at in range(12)]
    common = [entry(word, look=LOOK_A ^ at if at < 6 else None) for at, word in enumerate(words)]
    wishes = [Split.TRAIN, Split.VAL, None, Split.VAL]
    together = Barrier(len(wishes))

    def import_together(which):
        own = [entry(f"{turn}-{which}-train", "train"), entry(f"{turn}-{which}-val", "val")]
        wished = [replace(one, split=wishes[which]) for one in common]
        together.wait()
        return make([*wished, *own], name=f"set-{which}")

    with ThreadPoolExecutor(len(wishes)) as pool:
        created = list(pool.map(import_together, range(len(wishes))))

    kept = assignments()
    assert len({kept[word][0] for word in words[:6]}) == 1
    assert len({kept[word][1] for word in words[:6]}) == 1
    assert [one.revision.number for one in created] == [1] * len(wishes)


def test_new_labels_are_counted_by_image_and_label(make, entry, database):
    first = make([entry("a", "train"), entry("b", "val")]).revision
    second = make([entry("a", label="redrawn"), entry("c", "train")], extends=True).revision

    with database.transaction() as session:
        counts = [
            new_labels_since(session, second, since_revision=None),
            new_labels_since(session, second, since_revision=first),
            new_labels_since(session, second, since_revision=second),
            new_labels_since(session, first, since_revision=second),
        ]

    assert counts == [3, 2, 0, 1]


def test_what_is_learned_of_an_image_later_is_filled_in_and_never_overwritten(entry, database):
    entry("a")
    entry("a", look=LOOK_A)
    entry("a", look=LOOK_B, part="p")
    entry("a", part="q")

    with database.transaction() as session:
        image = session.scalars(select(Image)).one()
    assert (image.perceptual_hash, image.part_id) == (LOOK_A, "p")
