from __future__ import annotations

import json

import numpy as np
import pytest

from defectoscope.dataset.formats import read_label_studio
from defectoscope.dataset.formats.brush import encode_brush
from tests.images import encode
from tests.unit.dataset.formats.drawing import codes, find_pictures, taken

HEIGHT, WIDTH = 12, 16
UPLOADED = "/data/upload/3/1a2b3c4d-a.png"
#: Rows 3 to 9 and columns 4 to 8, in percent.
POINTS = [[25, 25], [50, 25], [50, 75], [25, 75]]


@pytest.fixture
def folder(tmp_path):
    for name in ("images/a.png", "images/b.png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encode(np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8), "PNG"))
    return tmp_path


def read(folder, tasks):
    path = folder / "export.json"
    path.write_text(tasks if isinstance(tasks, str) else json.dumps(tasks))
    findings = list(read_label_studio({"export.json": path}, pictures=find_pictures(folder)))
    return [finding for finding in findings if getattr(finding, "code", "") != "image_not_listed"]


def task(*results, image=UPLOADED, annotations=None, **data):
    return {
        "id": 1,
        "data": {"image": image} | data,
        "annotations": [{"id": 1, "result": list(results)}] if annotations is None else annotations,
    }


def polygon(*, label="scratch", points=POINTS, **changes):
    return {
        "id": "p1",
        "type": "polygonlabels",
        "original_width": WIDTH,
        "original_height": HEIGHT,
        "image_rotation": 0,
        "value": {"points": points, "closed": True, "polygonlabels": [label]},
    } | changes


def brush(mask, *, label="scratch", **changes):
    return {
        "id": "b1",
        "type": "brushlabels",
        "original_width": WIDTH,
        "original_height": HEIGHT,
        "value": {"format": "rle", "rle": encode_brush(mask), "brushlabels": [label]},
    } | changes


def paint(window, value=255):
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    mask[window] = value
    return mask


def test_brush_and_polygon_become_one_class_mask(folder):
    soft = paint(np.s_[0:2, 0:2])
    soft[1, 1] = 127

    [picture] = read(folder, [task(polygon(), brush(soft))])

    expected = paint(np.s_[3:9, 4:8], 1)
    expected[0, 0:2] = expected[1, 0] = 1
    assert (picture.name, picture.split, picture.part) == ("images/a.png", None, None)
    np.testing.assert_array_equal(picture.label, expected)


def test_regions_that_are_called_ignored_are(folder):
    [picture] = read(folder, [task(brush(paint(np.s_[0:6, :]), label="Ignored"), polygon())])

    expected = paint(np.s_[0:6, :])
    expected[3:9, 4:8] = 1
    np.testing.assert_array_equal(picture.label, expected)


def test_a_region_may_have_its_label_in_another_entry(folder):
    plain = brush(paint(np.s_[0:6, :])) | {"type": "brush"}
    del plain["value"]["brushlabels"]
    label = {"id": "b1", "type": "labels", "value": {"labels": ["ignore"]}}

    [picture] = read(folder, [task(plain, label)])

    np.testing.assert_array_equal(picture.label, paint(np.s_[0:6, :]))


def test_answers_that_draw_nothing_do_not_matter(folder):
    choice = {"id": "c", "type": "choices", "value": {"choices": ["bad"]}}

    [picture] = read(folder, [task(choice, polygon())])

    np.testing.assert_array_equal(picture.label, paint(np.s_[3:9, 4:8], 1))


def test_an_empty_annotation_is_a_clean_image(folder):
    [picture] = read(folder, [task()])

    np.testing.assert_array_equal(picture.label, paint(np.s_[0:0]))


@pytest.mark.parametrize(
    ("annotations", "code"),
    [
        pytest.param([], "image_without_label", id="none"),
        pytest.param("text", "image_without_label", id="no-list"),
        pytest.param([{"was_cancelled": True, "result": []}], "annotation_cancelled", id="skipped"),
        pytest.param([{"id": 3}], "invalid_label", id="no-results"),
        pytest.param([7], "invalid_label", id="a-number"),
    ],
)
def test_a_task_without_a_usable_annotation_is_left_out(folder, annotations, code):
    assert codes(read(folder, [task(annotations=annotations)])) == {"images/a.png": code}


def test_the_latest_annotation_that_nobody_cancelled_is_taken_and_that_is_said(folder):
    annotations = [
        {"id": 9, "created_at": "2026-01-01T10:00:00.000000Z", "result": []},
        {"id": 2, "created_at": "2026-01-01T09:00:00Z", "updated_at": "2026-01-02T00:00:00Z", "result": [polygon()]},
        {"id": 3, "created_at": "2026-01-03T00:00:00Z", "was_cancelled": True, "result": []},
    ]

    findings = read(folder, [task(annotations=annotations)])

    np.testing.assert_array_equal(taken(findings)["images/a.png"].label, paint(np.s_[3:9, 4:8], 1))
    assert codes(findings) == {"images/a.png": "several_annotations"}


def test_without_times_the_higher_number_is_later(folder):
    annotations = [{"id": 5, "result": [polygon()]}, {"id": 4, "created_at": "once", "result": []}]

    findings = read(folder, [task(annotations=annotations)])

    assert taken(findings)["images/a.png"].label.any()


@pytest.mark.parametrize(
    "image",
    [
        pytest.param(UPLOADED, id="uploaded"),
        pytest.param("/data/local-files/?d=set%2Fimages/a.png", id="local-storage"),
        pytest.param("s3://bucket/line%203/a.png", id="s3"),
        pytest.param("https://example.org/x/a.png?token=1", id="web"),
        pytest.param("C:\\pictures\\a.png", id="windows"),
        pytest.param("a.png", id="name"),
    ],
)
def test_an_address_means_the_file_of_its_name(folder, image):
    assert set(taken(read(folder, [task(image=image)]))) == {"images/a.png"}


def test_the_image_may_stand_under_another_name(folder):
    item = task(polygon())
    item["data"] = {"title": "Part 7", "picture": UPLOADED}

    assert set(taken(read(folder, [item]))) == {"images/a.png"}


def test_split_and_group_of_the_data_are_taken(folder):
    [picture] = read(folder, [task(split="val", group="tile 7")])

    assert (picture.split, picture.part) == ("val", "tile 7")


@pytest.mark.parametrize(
    ("result", "code"),
    [
        pytest.param(polygon(points=POINTS[:2]), "polygon_invalid", id="two-points"),
        pytest.param(polygon(points=[*POINTS, [float("nan"), 1]]), "polygon_invalid", id="nan"),
        pytest.param(polygon(points="text"), "polygon_invalid", id="text"),
        pytest.param(polygon(value={"points": POINTS, "closed": False}), "polygon_invalid", id="open"),
        pytest.param(polygon(image_rotation=90), "region_kind_unknown", id="turned"),
        pytest.param(polygon(type="rectanglelabels"), "region_kind_unknown", id="rectangle"),
        pytest.param(polygon(type=["odd"]), "region_kind_unknown", id="no-kind"),
        pytest.param(polygon(original_width=None), "label_size_mismatch", id="no-size"),
        pytest.param(polygon(original_width=WIDTH + 1), "label_size_mismatch", id="other-size"),
        pytest.param(brush(paint(np.s_[0, 0]), value={"rle": [1, 2]}), "run_lengths_invalid", id="cut-short"),
        pytest.param(brush(paint(np.s_[0, 0]), value={"rle": "text"}), "run_lengths_invalid", id="no-list"),
        pytest.param(brush(paint(np.s_[0, 0]), value={"format": "png"}), "region_kind_unknown", id="other-format"),
        pytest.param(brush(np.zeros((3, 3), dtype=np.uint8)), "run_lengths_invalid", id="stroke-of-other-size"),
    ],
)
def test_one_bad_region_leaves_its_image_out_and_no_other(folder, result, code):
    findings = read(folder, [task(polygon(), result), task(polygon(), image="b.png")])

    assert codes(findings) == {"images/a.png": code}
    assert set(taken(findings)) == {"images/b.png"}


def test_tasks_without_a_file_or_about_the_same_one_are_left_out(folder):
    findings = read(folder, [task(image="gone.png"), task(), task(polygon()), task(image=None)])

    assert taken(findings) == {}
    assert codes(findings) == {
        "gone.png": "label_without_image",
        "images/a.png": "image_listed_twice",
        "export.json, task 1": "label_without_image",
    }


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        pytest.param("[{", "is not JSON", id="cut-short"),
        pytest.param("{}", "is not a list of tasks", id="an-object"),
        pytest.param("[1]", "is not a list of tasks", id="numbers"),
        pytest.param('[{"image": "a.png", "tag": []}]', "as JSON, not as JSON-MIN", id="json-min"),
    ],
)
def test_a_file_that_is_no_export_is_reported_by_name(folder, text, sentence):
    [finding] = read(folder, text)

    assert (finding.name, finding.code) == ("export.json", "annotation_file_invalid")
    assert sentence in finding.reason
