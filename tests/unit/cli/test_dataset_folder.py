from __future__ import annotations

import pytest

from defectoscope.cli.dataset_folder import Row, find_row, read_folder, read_manifest, split_in_name
from defectoscope.dataset.formats import LabelledPicture
from defectoscope.errors.datasets import InvalidDataset
from defectoscope.errors.jobs import NoImagesFound


@pytest.fixture
def tree(tmp_path):
    def write(*names):
        for name in names:
            path = tmp_path / "steel" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(name)
        return tmp_path / "steel"

    return write


def taken(findings):
    return {finding.name: finding for finding in findings if isinstance(finding, LabelledPicture)}


def codes(findings):
    return {finding.name: finding.code for finding in findings if not isinstance(finding, LabelledPicture)}


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

    findings = read_folder(root)

    assert findings == [
        LabelledPicture(
            name="images/train/a.jpg",
            image_path=root / "images/train/a.jpg",
            label=root / "labels/train/a.png",
            split="train",
        ),
        LabelledPicture(
            name="images/val/b.jpg", image_path=root / "images/val/b.jpg", label=root / "labels/val/b.png", split="val"
        ),
    ]


def test_what_cannot_be_used_is_left_out_with_its_reason(tree):
    root = tree(
        *("images/train/a.jpg", "labels/train/a.png", "images/val/b.jpg", "labels/val/b.png"),
        *("images/train/no-label.jpg", "labels/val/no-image.png", "images/test/c.jpg", "labels/test/c.png"),
    )

    findings = read_folder(root)

    assert set(taken(findings)) == {"images/train/a.jpg", "images/val/b.jpg"}
    assert codes(findings) == {
        "images/train/no-label.jpg": "image_without_label",
        "labels/val/no-image.png": "label_without_image",
        "images/test/c.jpg": "image_outside_split",
    }


def test_a_folder_without_an_image_is_refused(tree):
    with pytest.raises(NoImagesFound):
        read_folder(tree("labels/a.png"))


def test_a_manifest_says_parts_and_splits_where_the_layout_says_none(tree):
    root = tree(
        "images/a.jpg", "labels/a.png", "images/deep/a.jpg", "labels/deep/a.png", "images/b.jpg", "labels/b.png"
    )
    (root / "manifest.csv").write_text("stem,group,split\na,tile 1,val\ndeep/a,tile 2,train\nb,,other\n")

    found = taken(read_folder(root))

    assert {name: (picture.part, picture.split) for name, picture in found.items()} == {
        "images/a.jpg": ("tile 1", "val"),
        "images/deep/a.jpg": ("tile 2", "train"),
        "images/b.jpg": (None, None),
    }


def test_the_layout_says_more_than_the_manifest(tree):
    root = tree("images/train/a.jpg", "labels/train/a.png")
    (root / "manifest.csv").write_text("stem,group,split\na,tile 1,val\n")

    [picture] = read_folder(root)

    assert (picture.part, picture.split) == ("tile 1", "train")


def test_a_manifest_above_is_read_for_this_set_alone(tree):
    root = tree("images/a.jpg")
    (root.parent / "manifest.csv").write_text("set,stem,group\nsteel,a,tile 1\nwood,a,tile 9\nsteel,b,\n")

    assert read_manifest(root) == {"a": Row("tile 1", None), "b": Row(None, None)}


@pytest.mark.parametrize("content", [None, "file,side\na,train\n"], ids=["no-file", "other-columns"])
def test_a_folder_without_a_manifest_is_fine(tree, content):
    root = tree("images/a.jpg")
    if content is not None:
        (root / "manifest.csv").write_text(content)

    assert read_manifest(root) == {}
    assert find_row({}, "images/a.jpg") == Row(None, None)


def test_a_manifest_that_is_no_text_is_refused(tree):
    root = tree("images/a.jpg")
    (root / "manifest.csv").write_bytes(b"stem,group\n\xff\xfe,x\n")

    with pytest.raises(InvalidDataset, match="not readable as CSV"):
        read_manifest(root)
