from __future__ import annotations

import hashlib
from collections import Counter

import pytest

from defectoscope.cli.dataset_folder import Pair, choose_splits, find_dataset, read_groups, split_in_name
from defectoscope.cli.datasets import choose_entries
from defectoscope.errors import InvalidDataset


@pytest.fixture
def tree(tmp_path):
    def write(*names):
        for name in names:
            path = tmp_path / "steel" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(name)
        return tmp_path / "steel"

    return write


def make_pairs(root, count, *, content=lambda number: f"image {number}"):
    """Pairs that say no split, and the hash of each image."""
    pairs = [
        Pair(name=f"images/{number}.png", image_path=root / f"{number}.png", label_path=root / "label", split=None)
        for number in range(count)
    ]
    hashes = [hashlib.sha256(content(number).encode()).hexdigest() for number in range(count)]
    return pairs, {pair.image_path: sha256 for pair, sha256 in zip(pairs, hashes, strict=True)}


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("images/train/a.jpg", "train"),
        ("images/val/line3/a.jpg", "val"),
        ("val/images/a.jpg", "val"),
        ("images/a.jpg", None),
        ("images/val.jpg", None),
    ],
)
def test_the_split_stands_in_the_path(name, split):
    assert split_in_name(name) == split


def test_pairs_of_a_split_layout_keep_their_sides(tree):
    root = tree("images/train/a.jpg", "labels/train/a.png", "images/val/b.jpg", "labels/val/b.png")

    folder = find_dataset(root)

    assert [(pair.name, pair.split) for pair in folder.pairs] == [
        ("images/train/a.jpg", "train"),
        ("images/val/b.jpg", "val"),
    ]
    assert folder.left_out == []


def test_what_cannot_be_used_is_left_out_with_its_reason(tree):
    root = tree(
        *("images/train/a.jpg", "labels/train/a.png", "images/val/b.jpg", "labels/val/b.png"),
        *("images/train/no-label.jpg", "labels/val/no-image.png", "images/test/c.jpg", "labels/test/c.png"),
    )

    folder = find_dataset(root)

    assert {(item.name, item.code) for item in folder.left_out} == {
        ("images/train/no-label.jpg", "image_without_label"),
        ("labels/val/no-image.png", "label_without_image"),
        ("images/test/c.jpg", "image_outside_split"),
    }


def test_a_folder_without_a_labelled_image_is_refused_with_the_layout(tree):
    root = tree("images/a.jpg", "masks/a.png")

    with pytest.raises(InvalidDataset, match="expected are images/ and labels/"):
        find_dataset(root)


def test_a_split_with_one_side_is_refused(tree):
    root = tree("images/train/a.jpg", "labels/train/a.png")

    with pytest.raises(InvalidDataset, match="no labelled image for val"):
        find_dataset(root)


def test_the_split_depends_on_content_alone(tmp_path):
    pairs, hashes = make_pairs(tmp_path, 500)
    renamed = dict(zip(hashes, reversed(hashes.values()), strict=True))

    splits = choose_splits(pairs, sha256_of=hashes, groups={}, val_fraction=0.2)
    again = choose_splits(list(reversed(pairs)), sha256_of=renamed, groups={}, val_fraction=0.2)

    by_content = {hashes[pair.image_path]: splits[pair.name] for pair in pairs}
    by_content_again = {renamed[pair.image_path]: again[pair.name] for pair in pairs}
    assert by_content == by_content_again
    assert 70 < Counter(splits.values())["val"] < 130


def test_an_image_that_joins_moves_no_other(tmp_path):
    pairs, hashes = make_pairs(tmp_path, 200)

    before = choose_splits(pairs[:150], sha256_of=hashes, groups={}, val_fraction=0.2)
    after = choose_splits(pairs, sha256_of=hashes, groups={}, val_fraction=0.2)

    assert {name: after[name] for name in before} == before


def test_a_group_is_never_on_both_sides(tmp_path):
    pairs, hashes = make_pairs(tmp_path, 200)
    groups = {str(number): f"tile {number // 4}" for number in range(200)}

    splits = choose_splits(pairs, sha256_of=hashes, groups=groups, val_fraction=0.2)

    sides = {frozenset(splits[f"images/{4 * tile + i}.png"] for i in range(4)) for tile in range(50)}
    assert sides == {frozenset({"train"}), frozenset({"val"})}


def test_equal_images_are_never_on_both_sides(tmp_path):
    pairs, hashes = make_pairs(tmp_path, 200, content=lambda number: f"image {number // 2}")

    splits = choose_splits(pairs, sha256_of=hashes, groups={}, val_fraction=0.5)

    assert all(splits[f"images/{2 * n}.png"] == splits[f"images/{2 * n + 1}.png"] for n in range(100))


@pytest.mark.parametrize("fraction", [0.01, 0.9])
def test_a_handful_of_images_still_gives_both_sides(tmp_path, fraction):
    pairs, hashes = make_pairs(tmp_path, 2)

    splits = choose_splits(pairs, sha256_of=hashes, groups={}, val_fraction=fraction)

    assert set(splits.values()) == {"train", "val"}


def test_one_image_is_no_dataset(tmp_path):
    pairs, hashes = make_pairs(tmp_path, 1)

    with pytest.raises(InvalidDataset, match="at least two"):
        choose_splits(pairs, sha256_of=hashes, groups={}, val_fraction=0.2)


def test_groups_are_read_from_above_for_this_set_alone(tree):
    root = tree("images/a.jpg")
    (root.parent / "manifest.csv").write_text("set,stem,group\nsteel,a,tile 1\nwood,a,tile 9\nsteel,b,\n")

    assert read_groups(root) == {"a": "tile 1"}


@pytest.mark.parametrize("content", [None, "file,split\na,train\n"], ids=["no file", "other columns"])
def test_a_folder_without_groups_is_fine(tree, content):
    root = tree("images/a.jpg")
    if content is not None:
        (root / "manifest.csv").write_text(content)

    assert read_groups(root) == {}


def registered(name, image_id, error=None):
    return {"name": name, "image_id": image_id, "label_id": None if error else 100 + image_id, "error": error}


def test_the_same_image_stays_in_validation_alone():
    labels = [registered("train/a", 1), registered("val/a", 1), registered("train/b", 2), registered("train/c", 2)]
    splits = {"train/a": "train", "val/a": "val", "train/b": "train", "train/c": "train"}

    entries, left_out = choose_entries(labels, splits)

    assert [(entry["name"], entry["split"]) for entry in entries] == [("train/b", "train"), ("val/a", "val")]
    assert {item.name for item in left_out} == {"train/a", "train/c"}


def test_a_rejected_pair_keeps_the_servers_reason():
    problem = {"code": "label_size_mismatch", "message": "The label and its image differ in size."}

    entries, [left_out] = choose_entries([registered("a", None, problem)], {"a": "train"})

    assert entries == []
    assert (left_out.code, left_out.reason) == (problem["code"], problem["message"])
