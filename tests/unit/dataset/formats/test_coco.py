from __future__ import annotations

import json

import numpy as np
import pytest

from defectoscope.dataset.formats import read_coco
from tests.images import encode
from tests.unit.dataset.formats.drawing import codes, find_pictures, list_below, taken

HEIGHT, WIDTH = 12, 16
SQUARE = {"segmentation": [[2, 3, 6, 3, 6, 9, 2, 9]], "iscrowd": 0}


@pytest.fixture
def folder(tmp_path):
    def write(*names):
        for name in names:
            path = tmp_path / "set" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode(np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8), "PNG"))
        return tmp_path / "set"

    return write


def describe(*annotations, image_id=7, name="a.png", **image):
    """A COCO document about one image."""
    return {
        "images": [{"id": image_id, "file_name": name, "width": WIDTH, "height": HEIGHT} | image],
        "annotations": [
            {"id": n, "image_id": image_id, "category_id": 1} | a for n, a in enumerate(annotations, start=1)
        ],
        "categories": [{"id": 1, "name": "scratch"}, {"id": 2, "name": "Ignore"}],
    }


def read(root, **documents):
    """Write each document as a file and read them all."""
    for name, document in documents.items():
        text = document if isinstance(document, str) else json.dumps(document)
        (root / f"{name}.json").write_text(text)
    files = {name: path for name, path in list_below(root).items() if name.endswith(".json")}
    return list(read_coco(files, pictures=find_pictures(root)))


def expect(*, defect=(), ignored=()):
    class_mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    for window in ignored:
        class_mask[window] = 255
    for window in defect:
        class_mask[window] = 1
    return class_mask


def test_polygons_run_lengths_and_text_become_one_class_mask(folder):
    root = folder("images/a.png")
    counts = [HEIGHT * 10, HEIGHT, HEIGHT * 5]
    uncompressed = {"segmentation": {"size": [HEIGHT, WIDTH], "counts": counts}, "iscrowd": 0}
    # One pixel in the upper left corner: counts 0, 1, 191.
    text = {"segmentation": {"size": [HEIGHT, WIDTH], "counts": "01o5"}, "iscrowd": 0}

    findings = read(root, instances=describe(SQUARE, uncompressed, text))

    [picture] = findings
    assert (picture.name, picture.image_path, picture.split) == ("images/a.png", root / "images/a.png", None)
    np.testing.assert_array_equal(picture.label, expect(defect=[np.s_[3:9, 2:6], np.s_[:, 10], np.s_[0, 0]]))


@pytest.mark.parametrize(
    "annotation",
    [
        pytest.param({"iscrowd": 1}, id="crowd"),
        pytest.param({"iscrowd": 0, "category_id": 2}, id="category-called-ignore"),
    ],
)
def test_crowds_are_ignored_and_a_defect_counts_more(folder, annotation):
    root = folder("a.png")
    wide = {"segmentation": [[0, 0, 16, 0, 16, 6, 0, 6]]} | annotation

    [picture] = read(root, instances=describe(SQUARE, wide))

    np.testing.assert_array_equal(picture.label, expect(ignored=[np.s_[0:6, :]], defect=[np.s_[3:9, 2:6]]))


def test_polygons_of_one_annotation_are_added_up(folder):
    two = {"segmentation": [[2, 3, 6, 3, 6, 9, 2, 9], [4, 3, 9, 3, 9, 9, 4, 9]]}

    [picture] = read(folder("a.png"), instances=describe(two))

    np.testing.assert_array_equal(picture.label, expect(defect=[np.s_[3:9, 2:9]]))


def test_an_image_without_annotations_is_clean(folder):
    [picture] = read(folder("a.png"), instances=describe())

    np.testing.assert_array_equal(picture.label, expect())


def test_an_image_whose_size_the_file_does_not_say_is_asked_itself(folder):
    [picture] = read(folder("a.png"), instances=describe(SQUARE, width=None))

    np.testing.assert_array_equal(picture.label, expect(defect=[np.s_[3:9, 2:6]]))


def test_the_names_of_the_files_say_the_split(folder):
    root = folder("images/train/a.png", "images/val/a.png", "images/val/deep/a.png")
    (root / "annotations").mkdir()

    findings = read(
        root, **{"annotations/instances_train2017": describe(SQUARE), "annotations/instances_val": describe()}
    )

    assert {name: picture.split for name, picture in taken(findings).items()} == {
        "images/train/a.png": "train",
        "images/val/a.png": "val",
    }
    assert codes(findings) == {"images/val/deep/a.png": "image_not_listed"}


def test_images_beside_their_file_are_meant(folder):
    root = folder("train/a.png", "valid/a.png")

    findings = read(root, **{"train/_annotations.coco": describe(SQUARE), "valid/_annotations.coco": describe()})

    assert {name: picture.split for name, picture in taken(findings).items()} == {
        "train/a.png": "train",
        "valid/a.png": "val",
    }


def test_a_path_of_another_machine_means_its_file_name(folder):
    root = folder("images/a.png", "images/b.png")

    findings = read(root, one=describe(name="C:\\work\\a.png"), two=describe(name="/data/someone/set/b.png"))

    assert set(taken(findings)) == {"images/a.png", "images/b.png"}


def test_another_folder_is_another_image(folder):
    findings = read(folder("part2/a.png"), one=describe(name="part1/a.png"))

    assert codes(findings) == {"part1/a.png": "label_without_image", "part2/a.png": "image_not_listed"}


def test_a_group_is_the_part(folder):
    [picture] = read(folder("a.png"), one=describe(group="tile 7"))

    assert picture.part == "tile 7"


RUNS = {"size": [HEIGHT, WIDTH], "counts": [HEIGHT * WIDTH]}


@pytest.mark.parametrize(
    ("annotation", "code"),
    [
        pytest.param({"segmentation": [[1, 1, 5, 5]]}, "polygon_invalid", id="two-points"),
        pytest.param({"segmentation": [[1, 1, 5, 5, 9]]}, "polygon_invalid", id="odd"),
        pytest.param({"segmentation": [[1, 1, 5, 5, 9, float("nan")]]}, "polygon_invalid", id="nan"),
        pytest.param({"segmentation": [[1, 1, 5, 5, 9, 1e7]]}, "polygon_invalid", id="far-away"),
        pytest.param({"segmentation": [7]}, "polygon_invalid", id="no-polygon"),
        pytest.param({"segmentation": []}, "region_kind_unknown", id="box-alone"),
        pytest.param({"segmentation": "text"}, "region_kind_unknown", id="text"),
        pytest.param({}, "region_kind_unknown", id="nothing"),
        pytest.param({"segmentation": RUNS | {"counts": [5, 5]}}, "run_lengths_invalid", id="too-few-pixels"),
        pytest.param({"segmentation": RUNS | {"counts": "zz~"}}, "run_lengths_invalid", id="bad-text"),
        pytest.param({"segmentation": RUNS | {"counts": None}}, "run_lengths_invalid", id="no-counts"),
        pytest.param({"segmentation": RUNS | {"size": [5]}}, "run_lengths_invalid", id="no-size"),
        pytest.param({"segmentation": RUNS | {"size": [WIDTH, HEIGHT]}}, "label_size_mismatch", id="other-size"),
        pytest.param({"segmentation": {"size": 7, "counts": 7}, "iscrowd": []}, "run_lengths_invalid", id="odd-kinds"),
    ],
)
def test_one_bad_annotation_leaves_its_image_out_and_no_other(folder, annotation, code):
    root = folder("a.png", "b.png")

    findings = read(root, one=describe(SQUARE, annotation), two=describe(SQUARE, name="b.png"))

    assert codes(findings) == {"a.png": code}
    assert set(taken(findings)) == {"b.png"}


def test_a_declared_size_beyond_any_image_is_refused(folder):
    findings = read(folder("a.png"), one=describe(width=10**6, height=10**6))

    assert codes(findings) == {"a.png": "invalid_label"}


def test_an_image_that_is_none_is_refused_where_its_size_is_needed(folder):
    root = folder("a.png")
    (root / "a.png").write_bytes(b"text")

    assert codes(read(root, one=describe(width=0))) == {"a.png": "image_not_recognised"}


def test_an_image_that_is_listed_twice_is_left_out_as_its_annotations_may_be_halves(folder):
    root = folder("a.png")

    findings = read(root, instances_train=describe(SQUARE), instances_val=describe())

    assert taken(findings) == {}
    assert {finding.code for finding in findings} == {"image_listed_twice"}


def test_a_number_that_two_images_share_leaves_both_out(folder):
    document = describe(SQUARE)
    document["images"].append({"id": 7, "file_name": "b.png", "width": WIDTH, "height": HEIGHT})

    findings = read(folder("a.png", "b.png"), one=document)

    assert codes(findings) == {"a.png": "image_listed_twice", "b.png": "image_listed_twice"}


def test_names_that_may_mean_several_images_are_left_out(folder):
    findings = read(folder("one/a.png", "two/a.png"), all=describe(SQUARE))

    assert codes(findings) == {"a.png": "image_ambiguous"}


def test_what_belongs_to_nothing_is_reported(folder):
    document = describe()
    document["images"] += [{"id": 8}, "text", {"id": 9, "file_name": "gone.png"}]
    document["annotations"] += [{"id": 5, "image_id": 99} | SQUARE, None]

    findings = read(folder("a.png"), instances=document)

    assert set(taken(findings)) == {"a.png"}
    assert codes(findings) == {
        "instances.json, image 1": "image_record_invalid",
        "instances.json, image 2": "image_record_invalid",
        "gone.png": "label_without_image",
        "instances.json, annotation 5": "annotation_without_image",
        "instances.json, annotation 1": "annotation_without_image",
    }


def test_images_of_neither_side_are_left_out_where_there_are_sides(folder):
    root = folder("a.png", "b.png")

    findings = read(root, instances_train=describe(SQUARE), instances_test=describe(name="b.png"))

    assert set(taken(findings)) == {"a.png"}
    assert codes(findings) == {"b.png": "image_outside_split"}


def test_a_region_that_covers_no_pixel_is_remarked(folder):
    sliver = {"segmentation": [[3.01, 3.01, 3.02, 3.01, 3.02, 3.02]]}

    findings = read(folder("a.png"), one=describe(SQUARE, sliver))

    np.testing.assert_array_equal(taken(findings)["a.png"].label, expect(defect=[np.s_[3:9, 2:6]]))
    assert codes(findings) == {"a.png": "region_without_pixels"}


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("{", id="cut-short"),
        pytest.param("", id="empty"),
        pytest.param("[" * 100_000, id="deep"),
        pytest.param("[]", id="a-list"),
        pytest.param('{"images": []}', id="no-annotations"),
        pytest.param("12", id="a-number"),
    ],
)
def test_a_file_that_is_no_coco_is_reported_by_name(folder, text):
    findings = read(folder("a.png"), one=text)

    assert codes(findings) == {"one.json": "annotation_file_invalid"}


def test_a_file_in_another_encoding_is_reported_by_name(folder):
    root = folder("a.png")
    (root / "one.json").write_bytes('{"images": "ü"}'.encode("latin-1"))

    assert codes(read(root))["one.json"] == "annotation_file_invalid"
