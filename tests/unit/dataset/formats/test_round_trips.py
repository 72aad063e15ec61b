"""What is exported and imported again is the same, bit for bit: holes, single pixels and ignored pixels included."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from defectoscope.dataset.formats import (
    read_coco,
    read_label_studio,
    write_coco,
    write_folder,
    write_label_studio,
    write_parquet,
)
from defectoscope.errors.datasets import ExportDirectoryNotEmpty
from defectoscope.errors.installation import ComponentMissing
from defectoscope.segmentation import decode_label
from tests.images import encode, encode_turned
from tests.unit.dataset.formats.drawing import draw_class_mask, find_pictures, list_below, make_picture, taken

CLASS_MASKS = hnp.array_shapes(min_dims=2, max_dims=2, max_side=12).flatmap(
    lambda shape: hnp.arrays(np.uint8, shape, elements=st.sampled_from([0, 1, 255]))
)
#: What a set of pictures is called, with everything that may go wrong with names.
NAMES = [
    "images/train/a.png",
    "images/val/a.png",
    "images/train/A.png",
    "images/train/a.jpg",
    "part 1/images/ä b.png",
    "../../escape.png",
    "/absolute/.hidden",
    "labels/" + "long" * 100 + ".png",
    "valid/back\\slash:colon?.png",
    "..",
]


def through_coco(pictures, root):
    write_coco(pictures, root)
    files = {
        f"annotations/instances_{split}.json": root / f"annotations/instances_{split}.json"
        for split in ("train", "val")
    }
    return list(read_coco(files, pictures=find_pictures(root)))


def through_label_studio(pictures, root):
    write_label_studio(pictures, root)
    return list(read_label_studio({"tasks.json": root / "tasks.json"}, pictures=find_pictures(root)))


READERS = [
    pytest.param(through_coco, id="coco"),
    pytest.param(through_label_studio, id="label-studio"),
]


@pytest.mark.parametrize("travel", READERS)
@given(class_masks=st.lists(CLASS_MASKS, min_size=1, max_size=3))
@settings(max_examples=40, deadline=None)
def test_every_class_mask_comes_back(travel, class_masks):
    pictures = [
        make_picture(class_mask, name=f"images/{n}.png", split="val" if n else "train", group=f"g{n}" if n else None)
        for n, class_mask in enumerate(class_masks)
    ]

    with tempfile.TemporaryDirectory() as directory:
        findings = travel(pictures, Path(directory) / "out")

    found = taken(findings)
    assert len(found) == len(findings) == len(pictures)
    for n, picture in enumerate(pictures):
        back = found[f"images/{picture.split}/{n}.png"]
        assert (back.split, back.part) == (picture.split, picture.group)
        np.testing.assert_array_equal(back.label, picture.class_mask)


@pytest.mark.parametrize("travel", READERS)
def test_pictures_of_any_name_come_back_with_their_own_label(travel, tmp_path):
    pictures = []
    for n, name in enumerate(NAMES):
        class_mask = draw_class_mask()
        class_mask[0, n] = 1
        pictures.append(make_picture(class_mask, name=name, split="val" if n % 2 else "train", seed=n))

    found = taken(travel(pictures, tmp_path / "out")).values()

    by_image = {back.image_path.read_bytes(): back for back in found}
    assert len(found) == len(by_image) == len(pictures)
    for picture in pictures:
        np.testing.assert_array_equal(by_image[picture.image].label, picture.class_mask)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("with_split", [True, False], ids=["folder", "flat"])
def test_folders_hold_every_picture_and_its_canonical_label(with_split, tmp_path):
    pictures = [
        make_picture(
            draw_class_mask(height=20 + n), name=name, split="val" if n % 2 else "train", seed=n, group=f"g{n % 3}"
        )
        for n, name in enumerate(NAMES)
    ]

    write_folder(pictures, tmp_path / "out", with_split=with_split)

    files = list_below(tmp_path / "out")
    images = {path.read_bytes(): name for name, path in files.items() if name.startswith("images/")}
    rows = (tmp_path / "out/manifest.csv").read_text().splitlines()
    assert rows[0] == "stem,group,split"
    assert len({name.casefold() for name in images.values()}) == len(pictures)
    for picture in pictures:
        name = images[picture.image]
        label = files["labels" + name.removeprefix("images").rpartition(".")[0] + ".png"]
        np.testing.assert_array_equal(decode_label(label.read_bytes()), picture.class_mask)
        side = f"images/{picture.split}/" if with_split else "images/"
        stem = name.removeprefix(side).rpartition(".")[0]
        assert name.startswith(side)
        assert f"{stem},{picture.group},{picture.split}" in rows


def test_parquet_has_a_row_for_each_picture(tmp_path):
    pictures = [
        make_picture(draw_class_mask(), name=f"{n}.png", split="val" if n == 2 else "train", seed=n) for n in range(3)
    ]

    write_parquet(pictures, tmp_path / "out")

    rows = [
        row
        for split in ("train", "val")
        for row in pyarrow.parquet.ParquetFile(tmp_path / f"out/{split}.parquet").read().to_pylist()
    ]
    assert [(row["name"], row["split"], row["group"]) for row in rows] == [
        ("0.png", "train", None),
        ("1.png", "train", None),
        ("2.png", "val", None),
    ]
    for row, picture in zip(rows, pictures, strict=True):
        assert (row["width"], row["height"]) == picture.size_wh
        assert row["image"] == picture.image
        assert row["image_sha256"] == picture.image_sha256
        np.testing.assert_array_equal(decode_label(row["label"]), picture.class_mask)


def test_parquet_without_its_library_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)

    with pytest.raises(ComponentMissing, match=r"install defectoscope\[datasets\]"):
        write_parquet([], tmp_path / "out")

    assert list(tmp_path.iterdir()) == []


def test_coco_describes_each_connected_region(tmp_path):
    class_mask = draw_class_mask()

    write_coco([make_picture(class_mask)], tmp_path / "out")

    document = json.loads((tmp_path / "out/annotations/instances_train.json").read_text())
    defects = [annotation for annotation in document["annotations"] if not annotation["iscrowd"]]
    crowds = [annotation for annotation in document["annotations"] if annotation["iscrowd"]]
    assert sum(annotation["area"] for annotation in defects) == (class_mask == 1).sum()
    assert sum(annotation["area"] for annotation in crowds) == (class_mask == 255).sum()
    assert [29, 19, 1, 1] in [annotation["bbox"] for annotation in defects]
    assert len(defects) == 2


@pytest.mark.parametrize("travel", READERS)
def test_a_turned_image_keeps_its_upright_label(travel, tmp_path):
    class_mask = draw_class_mask()
    image = encode_turned(np.zeros((30, 20, 3), dtype=np.uint8), "JPEG", orientation=6)

    found = taken(travel([make_picture(class_mask, name="a.jpg", image=image)], tmp_path / "out"))

    np.testing.assert_array_equal(found["images/train/a.jpg"].label, class_mask)


WRITERS = [
    pytest.param(lambda pictures, out: write_folder(pictures, out, with_split=True), id="folder"),
    pytest.param(write_coco, id="coco"),
    pytest.param(write_label_studio, id="label-studio"),
    pytest.param(write_parquet, id="parquet"),
]


@pytest.mark.parametrize("write", WRITERS)
def test_a_directory_that_holds_something_is_not_touched(write, tmp_path):
    (tmp_path / "kept.txt").write_text("mine")

    with pytest.raises(ExportDirectoryNotEmpty, match="holds files already"):
        write([make_picture(draw_class_mask())], tmp_path)

    assert list_below(tmp_path) == {"kept.txt": tmp_path / "kept.txt"}


@pytest.mark.parametrize("write", WRITERS)
def test_an_export_that_breaks_off_leaves_nothing(write, tmp_path):
    def break_off():
        yield make_picture(draw_class_mask())
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write(break_off(), tmp_path / "deep/out")

    assert list(tmp_path.rglob("*")) == [tmp_path / "deep"]


def test_an_empty_directory_is_filled(tmp_path):
    write_coco(
        [make_picture(draw_class_mask(), image=encode(np.zeros((20, 30, 3), dtype=np.uint8), "BMP"), name="a")],
        tmp_path,
    )

    assert set(list_below(tmp_path)) == {
        "annotations/instances_train.json",
        "annotations/instances_val.json",
        "images/train/a.bmp",
    }
