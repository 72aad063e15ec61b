from __future__ import annotations

import pytest

from defectoscope.layout import is_image_name, is_label_name, label_stem, pair_labels, stem


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("a.png", id="flat"),
        pytest.param("A.PNG", id="upper-case-extension"),
        pytest.param("part 7/b.JpEg", id="space-and-mixed-case"),
        pytest.param("images/train/a.tiff", id="split-folder"),
        pytest.param("labels/images/a.png", id="images-below-labels"),
        pytest.param("a.b.c.webp", id="dots-in-the-stem"),
        pytest.param("a.gif", id="gif-gets-its-named-error"),
        pytest.param("labels.png", id="a-file-called-labels"),
        pytest.param("Labels/a.png", id="folder-names-are-case-sensitive"),
    ],
)
def test_a_picture_outside_a_labels_folder_is_an_image(name):
    assert is_image_name(name)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("", id="empty"),
        pytest.param("images/", id="folder"),
        pytest.param("a.txt", id="other-extension"),
        pytest.param("png", id="no-extension"),
        pytest.param(".png", id="only-an-extension"),
        pytest.param(".hidden.png", id="hidden-file"),
        pytest.param("images/.cache/a.png", id="hidden-folder"),
        pytest.param("__MACOSX/images/._a.png", id="resource-fork"),
        pytest.param("labels/a.png", id="label"),
        pytest.param("images/labels/a.png", id="labels-below-images"),
    ],
)
def test_other_files_are_no_images(name):
    assert not is_image_name(name)


@pytest.mark.parametrize(
    ("image", "label"),
    [
        pytest.param("images/a.jpg", "labels/a", id="beside"),
        pytest.param("images/train/a.jpg", "labels/train/a", id="split-folder"),
        pytest.param("part7/images/b.png", "part7/labels/b", id="nested-part"),
        pytest.param("images/part7/images/b.png", "images/part7/labels/b", id="the-last-images-folder-counts"),
        pytest.param("images/a.v2.png", "labels/a.v2", id="dots-in-the-stem"),
        pytest.param("images/images.png", "labels/images", id="a-file-called-images"),
        pytest.param("a.png", None, id="flat"),
        pytest.param("images.png", None, id="a-file-called-images-outside"),
    ],
)
def test_a_label_lies_where_its_image_lies_with_images_replaced_by_labels(image, label):
    found = label_stem(image)

    assert found == label


def test_the_stem_keeps_the_folders():
    assert stem("train/a.b.jpg") == "train/a.b"


def test_a_label_folder_is_told_by_the_last_of_the_two_names():
    assert is_label_name("images/labels/a.png")
    assert not is_label_name("labels/images/a.png")


def test_every_image_is_paired_with_its_label_in_the_order_given():
    names = [
        "images/val/b.JPG",
        "labels/val/b.png",
        "images/train/a.png",
        "labels/train/a.tif",
        "images/train/without.png",
        "labels/train/without_image.png",
        "part7/images/c.bmp",
        "part7/labels/c.bmp",
        "loose.png",
        "images/.hidden.png",
    ]

    pairs = pair_labels(names)

    assert list(pairs.items()) == [
        ("images/val/b.JPG", "labels/val/b.png"),
        ("images/train/a.png", "labels/train/a.tif"),
        ("images/train/without.png", None),
        ("part7/images/c.bmp", "part7/labels/c.bmp"),
        ("loose.png", None),
    ]


@pytest.mark.parametrize("other", ["labels/a.txt", "labels/a.json", "labels/.a.png"])
def test_a_file_that_is_no_picture_is_never_a_label(other):
    pairs = pair_labels(["images/a.png", "labels/a.png", other])

    assert pairs == {"images/a.png": "labels/a.png"}


def test_of_two_labels_of_one_stem_the_first_by_name_is_taken_whatever_the_order():
    names = ["images/a.jpg", "labels/a.png", "labels/a.bmp"]

    pairs = [pair_labels(names), pair_labels(reversed(names))]

    assert pairs == [{"images/a.jpg": "labels/a.bmp"}] * 2
