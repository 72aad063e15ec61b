from __future__ import annotations

import json

import pytest

from defectoscope.cli.dataset_sources import check_name, default_name, open_source
from defectoscope.dataset.formats import (
    LabelledPicture,
    write_coco,
    write_folder,
    write_label_studio,
)
from defectoscope.errors.api import InvalidRequest
from defectoscope.errors.datasets import InvalidDataset
from defectoscope.errors.jobs import NoImagesFound
from tests.unit.dataset.formats.drawing import draw_class_mask, make_picture

PICTURES = [
    make_picture(draw_class_mask(), name="a.png", split="train", group="tile 1"),
    make_picture(draw_class_mask(height=22), name="b.png", split="val", seed=1),
]


def write_flat(pictures, out):
    write_folder(pictures, out, with_split=False)


def write_split(pictures, out):
    write_folder(pictures, out, with_split=True)


def taken(findings):
    return [finding for finding in findings if isinstance(finding, LabelledPicture)]


@pytest.mark.parametrize("write", [write_flat, write_split, write_coco, write_label_studio])
def test_every_export_is_recognised_and_keeps_splits_and_parts(write, tmp_path):
    write(PICTURES, tmp_path / "out")

    findings = list(open_source(tmp_path / "out", chosen="auto"))

    assert [(finding.split, finding.part) for finding in findings] == [("train", "tile 1"), ("val", None)]


def test_labels_count_more_than_annotation_files(tmp_path):
    write_split(PICTURES, tmp_path / "out")
    (tmp_path / "out/notes.json").write_text("{}")

    assert len(taken(open_source(tmp_path / "out", chosen="auto"))) == 2


def test_an_annotation_file_may_be_named_and_its_images_be_elsewhere(tmp_path):
    write_label_studio(PICTURES, tmp_path / "out")
    (tmp_path / "export.json").write_bytes((tmp_path / "out/tasks.json").read_bytes())

    found = taken(open_source(tmp_path / "export.json", chosen="auto", images=tmp_path / "out/images"))

    assert [picture.name for picture in found] == ["train/a.png", "val/b.png"]


def test_of_the_files_of_coco_those_of_instances_are_read(tmp_path):
    write_coco(PICTURES, tmp_path / "out")
    (tmp_path / "out/annotations/captions_train.json").write_text('{"images": [], "annotations": []}')

    assert len(list(open_source(tmp_path / "out", chosen="coco"))) == 2


def test_files_of_two_formats_need_a_word(tmp_path):
    write_coco(PICTURES, tmp_path / "out")
    (tmp_path / "out/tasks.json").write_text("\ufeff [ ]", encoding="utf-8")

    with pytest.raises(InvalidDataset, match="--format"):
        open_source(tmp_path / "out", chosen="auto")


@pytest.mark.parametrize(
    ("chosen", "names", "error", "sentence"),
    [
        pytest.param("auto", [], NoImagesFound, "no image", id="nothing"),
        pytest.param("coco", ["a.png"], InvalidDataset, "holds no JSON file", id="no-json"),
        pytest.param("auto", ["a.json"], InvalidDataset, "neither COCO nor", id="other-json"),
    ],
)
def test_a_directory_without_a_dataset_is_refused(tmp_path, chosen, names, error, sentence):
    for name in names:
        (tmp_path / name).write_text(json.dumps("text"))

    with pytest.raises(error, match=sentence):
        open_source(tmp_path, chosen=chosen)


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "a.json").write_text("[]")

    with pytest.raises(InvalidDataset, match="is no directory"):
        open_source(tmp_path / "a.json", chosen="folder")


def test_a_path_without_anything_is_refused(tmp_path):
    with pytest.raises(InvalidRequest, match="no directory"):
        open_source(tmp_path / "gone", chosen="auto")


def test_a_dataset_is_called_like_its_directory(tmp_path):
    (tmp_path / "steel").mkdir()
    (tmp_path / "steel/export.json").write_text("[]")

    assert default_name(tmp_path / "steel") == default_name(tmp_path / "steel/export.json") == "steel"


@pytest.mark.parametrize("name", ["", "with space", "-x", "a" * 101])
def test_a_name_that_no_dataset_may_have_is_refused(name):
    with pytest.raises(InvalidDataset, match="--name"):
        check_name(name)
