from __future__ import annotations

import os

import pytest

from defectoscope.cli.local_files import find_in_folder, list_files, name_files
from defectoscope.errors.api import InvalidRequest
from defectoscope.errors.jobs import NoImagesFound


@pytest.fixture
def tree(tmp_path):
    """Write files under a folder; the content is the name."""

    def write(*names, root="batch"):
        for name in names:
            path = tmp_path / root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(name)
        return tmp_path / root

    return write


def pairs(found):
    return {image.name: image.label_path.read_text() if image.label_path else None for image in found.images}


def test_labels_are_found_beside_images(tree):
    root = tree("images/a.jpg", "images/b.png", "labels/a.png", "part7/images/c.tif", "part7/labels/c.png")

    assert pairs(find_in_folder(root)) == {
        "images/a.jpg": "labels/a.png",
        "images/b.png": None,
        "part7/images/c.tif": "part7/labels/c.png",
    }


def test_a_folder_called_images_takes_its_labels_from_beside_it(tree):
    root = tree("images/a.jpg", "labels/a.png")

    assert pairs(find_in_folder(root / "images")) == {"a.jpg": "labels/a.png"}


def test_labels_may_lie_elsewhere(tree):
    root = tree("line/a.jpg", "b.jpg")
    labels = tree("line/a.png", "c.png", root="truth")

    found = find_in_folder(root, labels_root=labels)

    assert pairs(found) == {"b.jpg": None, "line/a.jpg": "line/a.png"}
    assert found.lone_labels == ["c.png"]


def test_labels_inside_the_folder_are_no_images(tree):
    root = tree("a.jpg", "truth/a.png")

    assert pairs(find_in_folder(root, labels_root=root / "truth")) == {"a.jpg": "truth/a.png"}


def test_what_is_neither_image_nor_label_is_counted(tree):
    root = tree("images/a.jpg", "images/notes.txt", "labels/a.json", "readme.md", ".hidden.png")

    found = find_in_folder(root)

    assert pairs(found) == {"images/a.jpg": None}
    assert found.ignored_count == 3


def test_empty_files_are_taken_so_that_they_get_their_named_error(tree):
    root = tree("images/a.jpg", "labels/a.png")
    (root / "images/a.jpg").write_bytes(b"")

    found = find_in_folder(root)

    assert pairs(found) == {"images/a.jpg": "labels/a.png"}


@pytest.mark.parametrize("names", [["readme.md"], ["labels/a.png"]], ids=["no picture", "labels alone"])
def test_a_folder_without_images_is_told_so(tree, names):
    root = tree(*names)

    with pytest.raises(NoImagesFound, match="There is no image in"):
        find_in_folder(root)


def test_a_link_to_a_folder_is_followed_once(tree):
    root = tree("images/a.jpg")
    (root / "images" / "again").symlink_to(root)

    assert [name for name, _ in list_files(root)] == ["images/a.jpg"]


def test_a_name_that_json_cannot_carry_is_made_printable(tmp_path):
    (tmp_path / os.fsdecode(b"a\xff\n.png")).write_bytes(b"x")

    assert [name for name, _ in list_files(tmp_path)] == ["a��.png"]


def test_named_files_are_taken_whatever_they_are_called(tree):
    root = tree("a.jpg", "notes.txt")

    found = name_files([root / "a.jpg", root / "notes.txt"])

    assert pairs(found) == {"a.jpg": None, "notes.txt": None}


def test_files_of_one_name_are_told_apart_by_their_folders(tree):
    root = tree("x/a.jpg", "y/a.jpg")

    found = name_files([root / "x/a.jpg", root / "y/a.jpg"])

    assert list(pairs(found)) == ["x/a.jpg", "y/a.jpg"]


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InvalidRequest, match=r"There is no file .*nowhere\.png"):
        name_files([tmp_path / "nowhere.png"])
