from __future__ import annotations

import csv
import io
import json
import time

import pytest

from defectoscope.cli.defects import CSV_COLUMNS, print_csv
from defectoscope.cli.job_report import group_errors, has_succeeded
from defectoscope.cli.job_sources import read_keys
from defectoscope.cli.moments import format_duration
from defectoscope.cli.output import format_bytes, print_facts, print_json, print_json_items, print_table, progress, say
from defectoscope.cli.results import place_below
from defectoscope.cli.training import describe_epoch, read_changes
from defectoscope.errors.api import InvalidRequest
from defectoscope.errors.jobs import NoImagesFound
from defectoscope.errors.storage import InvalidStorageUri

DEFECT = {
    "id": 1,
    "result_id": 2,
    "image_id": 3,
    "image_name": "images/a.png",
    "image_sha256": "ab",
    "source_uri": 's3://line-3/a, "b".png',
    "model_version": 4,
    "number": 1,
    "box_xyxy": [1, 2, 5, 6],
    "area_px": 16,
    "area_mm2": None,
    "centroid_xy": [2.5, 3.5],
    "major_axis_px": 4.6,
    "minor_axis_px": 4.5,
    "orientation_deg": -2.0,
    "perimeter_px": 16.0,
    "max_probability": 0.9,
    "mean_probability": 0.8,
    "touches_border": False,
}


def test_a_table_in_a_pipe_is_never_cut(capsys):
    name = "x" * 500

    print_table({"name": "left", "count": "right"}, [[name, 7]], empty="Nothing.")

    lines = capsys.readouterr().out.splitlines()
    assert lines[2] == f"{name}{7:>8}"


def test_an_empty_table_is_a_sentence(capsys):
    print_table({"name": "left"}, [], empty="There is nothing.")

    assert capsys.readouterr().out == "There is nothing.\n"


def test_names_are_neither_markup_nor_commands_to_the_terminal(capsys):
    say("[red]a\x1b[31m\udcff[/red]")
    print_facts({"name": "[bold]b\n[/bold]"})

    assert capsys.readouterr().out == "[red]a?[31m?[/red]\nname  [bold]b?[/bold]\n"


def test_json_survives_what_utf8_does_not(capsys):
    print_json({"name": "Größe \udcff"})

    assert json.loads(capsys.readouterr().out) == {"name": "Größe ?"}


@pytest.mark.parametrize("count", [0, 1, 3])
def test_streamed_items_are_one_document(capsys, count):
    print_json_items({"id": number} for number in range(count))

    assert json.loads(capsys.readouterr().out) == {"items": [{"id": number} for number in range(count)]}


def test_csv_has_a_header_and_quotes_and_ends_lines_as_the_standard_says(capfdbinary):
    print_csv(iter([DEFECT, DEFECT]))

    written = capfdbinary.readouterr().out
    header, *rows = csv.reader(io.StringIO(written.decode(), newline=""))
    assert written.count(b"\r\n") == 3
    assert written.count(b"\n") == 3
    assert tuple(header) == CSV_COLUMNS
    assert len(rows) == 2
    assert dict(zip(header, rows[0], strict=True)) == {
        **{name: str(value) for name, value in DEFECT.items() if name in CSV_COLUMNS},
        "box_x1": "1",
        "box_y1": "2",
        "box_x2": "5",
        "box_y2": "6",
        "centroid_x": "2.5",
        "centroid_y": "3.5",
        "area_mm2": "",
        "touches_border": "false",
    }


def test_csv_without_defects_is_its_header(capfdbinary):
    print_csv(iter([]))

    assert capfdbinary.readouterr().out == ",".join(CSV_COLUMNS).encode() + b"\r\n"


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("images/a.jpg", "masks/images/a.jpg.png"),
        ("../../etc/passwd", "masks/etc/passwd.png"),
        ("/etc/passwd", "masks/etc/passwd.png"),
        ("..\\..\\c:\\boot.ini", "masks/c_/boot.ini.png"),
        ("..", "masks/image.png"),
        ("a\x1b.png", "masks/a?.png.png"),
    ],
)
def test_a_download_never_leaves_its_directory(tmp_path, name, place):
    assert place_below(tmp_path / "masks", name, suffix=".png") == tmp_path / place


def test_errors_are_grouped_with_the_most_frequent_first():
    truncated = {"code": "image_truncated", "message": "It ends early."}
    empty = {"code": "image_empty", "message": "It is empty."}

    groups = group_errors([("a", empty), *((str(number), truncated) for number in range(5))])

    assert [(group.code, group.count, group.names) for group in groups] == [
        ("image_truncated", 5, ["0", "1", "2"]),
        ("image_empty", 1, ["a"]),
    ]


@pytest.mark.parametrize(
    ("state", "qa", "content"),
    [
        ("succeeded", None, True),
        ("succeeded", {"passed": True}, True),
        ("succeeded", {"passed": False}, False),
        ("partial", None, False),
        ("failed", None, False),
        ("cancelled", None, False),
    ],
)
def test_a_job_is_good_when_all_of_it_is(state, qa, content):
    assert has_succeeded({"state": state, "qa": qa}) is content


def test_keys_are_named_below_the_prefix_they_share(tmp_path):
    file = tmp_path / "keys.txt"
    file.write_text("s3://line-3/x/y/a.png\ts3://line-3/labels/a.png\n\ns3://line-3/x/z/b.png\n")

    assert read_keys(file) == [
        {"name": "y/a.png", "uri": "s3://line-3/x/y/a.png", "label_uri": "s3://line-3/labels/a.png"},
        {"name": "z/b.png", "uri": "s3://line-3/x/z/b.png", "label_uri": None},
    ]


@pytest.mark.parametrize(
    ("text", "error", "sentence"),
    [
        ("", NoImagesFound, "There is no address"),
        ("line/a.png\n", InvalidRequest, "Line 1 of"),
        ("s3://line-3/a.png\tlabels/a.png\n", InvalidRequest, "Line 1 of"),
        ("s3://Line-3/a.png\n", InvalidStorageUri, "s3://Line-3/a.png is not of the form"),
    ],
    ids=["empty", "no scheme", "label without scheme", "bucket"],
)
def test_a_line_that_is_no_address_is_named(tmp_path, text, error, sentence):
    file = tmp_path / "keys.txt"
    file.write_text(text)

    with pytest.raises(error, match=sentence):
        read_keys(file)


def test_values_of_a_recipe_are_json_where_they_can_be():
    assert read_changes(["epochs=2", "encoder_weights=null", "input_size_wh=[64, 64]", "loss=a=b"]) == {
        "epochs": 2,
        "encoder_weights": None,
        "input_size_wh": [64, 64],
        "loss": "a=b",
    }


def test_an_epoch_is_one_line():
    line = describe_epoch({"epoch": 3, "values": {"train_loss": 0.123456, "val_iou_defect": 0.5}}, 12)

    assert line == "epoch 3/12  loss 0.1235  IoU defect 0.5000"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.84, "0.8 s"), (59.0, "59.0 s"), (192, "3 min 12 s"), (7500, "2 h 5 min"), (None, None)]
)
def test_a_duration_is_in_the_unit_that_fits(seconds, text):
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 bytes"), (999, "999 bytes"), (3_400_000, "3.4 MB"), (5e12, "5.0 TB")]
)
def test_a_size_is_in_the_unit_that_fits(count, text):
    assert format_bytes(count) == text


def test_progress_without_a_terminal_says_what_is_known(capsys):
    with progress("Training run 1", None) as bar:
        time.sleep(3.1)
        bar.show(completed=0, total=None, detail="running")

    assert capsys.readouterr().err == "Training run 1: running\n"
