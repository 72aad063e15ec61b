from __future__ import annotations

import numpy as np
import pytest

from defectoscope.cli.dataset_report import check_any, print_findings, read_moves
from defectoscope.cli.dataset_staging import StagedPicture, find_one_sided, stage
from defectoscope.cli.dataset_upload import choose_entries
from defectoscope.dataset.formats import LabelledPicture, LeftOut, Remark
from defectoscope.errors.api import InvalidRequest
from defectoscope.errors.datasets import InvalidDataset
from defectoscope.segmentation import decode_label, encode_class_mask
from tests.images import encode
from tests.unit.dataset.formats.drawing import draw_class_mask

CLASS_MASK = draw_class_mask()


@pytest.fixture
def scratch(tmp_path):
    (tmp_path / "scratch").mkdir()
    return tmp_path / "scratch"


def picture(label, *, name="a.png", image_path="image", split=None):
    return LabelledPicture(name=name, image_path=image_path, label=label, split=split, part="tile 1")


def staged(name="a.png", *, split=None, classes=(0, 1)):
    return StagedPicture(
        name=name, image_path=None, label_path=None, split=split, part="tile 1", classes=frozenset(classes)
    )


def test_a_class_mask_becomes_a_file_of_the_canonical_form(scratch):
    result = stage([picture(CLASS_MASK, split="val")], scratch)

    [ready] = result.pictures
    assert ready.label_path.read_bytes() == encode_class_mask(CLASS_MASK)
    assert (ready.split, ready.part, ready.classes) == ("val", "tile 1", {0, 1, 255})


def test_a_label_file_is_left_as_it_is(scratch, tmp_path):
    path = tmp_path / "label.png"
    path.write_bytes(encode((CLASS_MASK == 1) * np.uint8(255), "PNG"))

    result = stage([picture(path)], scratch)

    [ready] = result.pictures
    assert (ready.label_path, ready.classes) == (path, {0, 1})
    assert list(scratch.iterdir()) == []


def test_class_numbers_become_the_canonical_form_and_others_are_named(scratch, tmp_path):
    # Without a 1, nothing but the option says that 255 is ignored.
    only_ignored = np.where(CLASS_MASK == 255, CLASS_MASK, 0).astype(np.uint8)
    (tmp_path / "good.png").write_bytes(encode(only_ignored, "PNG"))
    (tmp_path / "bad.png").write_bytes(encode(CLASS_MASK * np.uint8(3), "PNG"))

    result = stage(
        [picture(tmp_path / "good.png", name="good"), picture(tmp_path / "bad.png", name="bad")],
        scratch,
        label_values="index",
    )

    [ready] = result.pictures
    [left_out] = result.left_out
    np.testing.assert_array_equal(decode_label(ready.label_path.read_bytes()), only_ignored)
    assert ready.classes == {0, 255}
    assert (left_out.name, left_out.code) == ("bad", "label_values_unknown")
    assert "values 3, 253;" in left_out.reason


def test_a_label_that_cannot_be_decoded_is_left_out_before_anything_is_sent(scratch, tmp_path):
    (tmp_path / "text.png").write_text("text")

    result = stage([picture(tmp_path / "text.png")], scratch)

    assert result.pictures == []
    assert [finding.code for finding in result.left_out] == ["invalid_label"]


def test_a_label_file_that_is_gone_stops_the_import(scratch, tmp_path):
    with pytest.raises(InvalidRequest, match="cannot be read"):
        stage([picture(tmp_path / "gone.png")], scratch)


def test_findings_of_readers_are_passed_on_and_every_label_is_counted(scratch, tmp_path):
    (tmp_path / "label.png").write_bytes(encode_class_mask(CLASS_MASK))
    left_out, remark = LeftOut("x", "a", "b"), Remark("y", "c", "d")
    seen = []

    result = stage(
        [picture(tmp_path / "label.png", name="b"), left_out, picture(CLASS_MASK, name="a"), remark],
        scratch,
        on_label=lambda: seen.append(1),
    )

    assert [ready.name for ready in result.pictures] == ["a", "b"]
    assert (result.left_out, result.remarks, len(seen)) == ([left_out], [remark], 2)


@pytest.mark.parametrize(
    ("pictures", "sentences"),
    [
        pytest.param([staged()], [], id="both-classes"),
        pytest.param([staged(classes=[0]), staged(classes=[1])], [], id="one-each"),
        pytest.param([staged(classes=[0])], ["No label of the dataset shows any defect."], id="no-defect"),
        pytest.param([staged(classes=[1, 255])], ["No label of the dataset shows any background."], id="all-defect"),
        pytest.param(
            [staged(split="train"), staged(split="val", classes=[0])],
            ["No label of the validation side shows any defect."],
            id="validation-without-defects",
        ),
        pytest.param(
            [staged(split="train", classes=[0]), staged()],
            ["No label of the training side shows any defect."],
            id="training-without-defects",
        ),
    ],
)
def test_one_class_alone_is_said(pictures, sentences):
    remarks = find_one_sided(pictures)

    assert [remark.reason for remark in remarks] == sentences
    assert {remark.code for remark in remarks} <= {"one_class_only"}


def registered(name, image_id, error=None):
    return {"name": name, "image_id": image_id, "label_id": None if error else 100 + image_id, "error": error}


def test_the_same_image_stays_in_validation_alone():
    labels = [registered("train/a", 1), registered("val/a", 1), registered("b", 2), registered("c", 2)]
    pictures = [staged("train/a", split="train"), staged("val/a", split="val"), staged("b"), staged("c")]

    entries, left_out = choose_entries(labels, pictures)

    assert [(entry["name"], entry["split"], entry["part"]) for entry in entries] == [
        ("b", None, "tile 1"),
        ("val/a", "val", "tile 1"),
    ]
    assert {item.name: item.reason for item in left_out} == {
        "train/a": "It is the same image as val/a, in val.",
        "c": "It is the same image as b.",
    }


def test_a_rejected_pair_keeps_the_servers_reason():
    problem = {"code": "label_size_mismatch", "message": "The label and its image differ in size."}

    entries, [left_out] = choose_entries([registered("a", None, problem)], [staged("a")])

    assert entries == []
    assert (left_out.code, left_out.reason) == (problem["code"], problem["message"])


def test_what_the_server_put_elsewhere_is_shown(capsys):
    sentence = "It looks the same as val/a.jpg, which is in validation."
    move = {"name": "train/b.jpg", "split": "val", "code": "duplicate_of_validation", "message": sentence}

    print_findings("Put elsewhere than asked", read_moves({"moves": [move, move | {"name": "train/c.jpg"}]}))

    shown = capsys.readouterr().out
    assert "Put elsewhere than asked: 2" in shown
    assert all(word in shown for word in ("duplicate_of_validation", sentence, "train/b.jpg, train/c.jpg"))


def test_an_import_of_nothing_names_the_most_frequent_reason():
    left_out = [LeftOut("a", "one", "First."), LeftOut("b", "two", "Second."), LeftOut("c", "two", "Second.")]

    with pytest.raises(InvalidDataset, match=r"Most often: Second\.") as caught:
        check_any([], left_out, as_json=True)

    assert [item["code"] for item in caught.value.details["left_out"]] == ["one", "two", "two"]
