"""`defectoscope defects`: list, filter and export what was found."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from defectoscope.cli.output import print_json_items, print_table
from defectoscope.cli.session import JsonOption, open_client

if TYPE_CHECKING:
    from defectoscope.client.wire import Defect

app = typer.Typer(no_args_is_help=True, help="List, filter and export the defects that were found.")

#: The columns of the CSV, in their order. New ones are added at the end, so that readers by position keep working.
CSV_COLUMNS = (
    "id",
    "result_id",
    "image_id",
    "image_sha256",
    "source_uri",
    "model_version",
    "number",
    "box_x1",
    "box_y1",
    "box_x2",
    "box_y2",
    "area_px",
    "area_mm2",
    "centroid_x",
    "centroid_y",
    "major_axis_px",
    "minor_axis_px",
    "orientation_deg",
    "perimeter_px",
    "max_probability",
    "mean_probability",
    "touches_border",
    "image_name",
)
_TABLE_ROWS = 50


@app.callback()
def _noun() -> None:
    """List, filter and export the defects that were found."""


@app.command("list")
def list_defects(
    job: Annotated[int | None, typer.Option(metavar="ID", help="Only of this job.")] = None,
    image: Annotated[int | None, typer.Option(metavar="ID", help="Only of this image.")] = None,
    result: Annotated[int | None, typer.Option(metavar="ID", help="Only of this result.")] = None,
    min_area: Annotated[int | None, typer.Option(min=0, metavar="PX", help="Only of this area or larger.")] = None,
    min_probability: Annotated[
        float | None, typer.Option(min=0, max=1, metavar="P", help="Only of this greatest probability or higher.")
    ] = None,
    model: Annotated[int | None, typer.Option(min=1, metavar="N", help="Only found by this model version.")] = None,
    largest: Annotated[int | None, typer.Option(min=1, metavar="N", help="The N largest, largest first.")] = None,
    limit: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="At most N; 0 for all. By default 50 in a table, else all.")
    ] = None,
    form: Annotated[Literal["table", "json", "csv"], typer.Option("--format", help="How they are printed.")] = "table",
    as_json: JsonOption = False,
) -> None:
    """List defects. JSON and CSV are streamed, however many there are."""
    form = "json" if as_json else form
    if limit is None and form == "table":
        limit = _TABLE_ROWS
    with open_client() as client:
        defects = client.defects.list(
            job=job,
            image=image,
            result=result,
            model_version=model,
            min_area_px=min_area,
            min_probability=min_probability,
            order="area" if largest else None,
            limit=largest or limit or None,
        )
        match form:
            case "json":
                print_json_items(defects)
            case "csv":
                print_csv(defects)
            case "table":
                _print_defects(defects)


def print_csv(defects: Iterable[Defect]) -> None:
    """Print a header and a line for each defect, as RFC 4180 has it: CRLF, quotes where they are needed."""
    line = io.StringIO()
    writer = csv.writer(line)
    writer.writerow(CSV_COLUMNS)
    for defect in defects:
        _flush(line)
        writer.writerow(_csv_row(defect))
    _flush(line)


def _flush(line: io.StringIO) -> None:
    # The text layer of standard output would turn the CRLF of the standard into the line end of the platform.
    sys.stdout.flush()
    sys.stdout.buffer.write(line.getvalue().encode(errors="replace"))
    line.seek(0)
    line.truncate()


def _csv_row(defect: Defect) -> list[object]:
    centroid_x, centroid_y = defect["centroid_xy"]
    values: dict[str, object] = {
        **defect,
        **dict(zip(("box_x1", "box_y1", "box_x2", "box_y2"), defect["box_xyxy"], strict=True)),
        "centroid_x": centroid_x,
        "centroid_y": centroid_y,
        "touches_border": "true" if defect["touches_border"] else "false",
    }
    return [values[column] for column in CSV_COLUMNS]


def _print_defects(defects: Iterable[Defect]) -> None:
    shown = list(defects)
    has_scale = any(defect["area_mm2"] is not None for defect in shown)
    print_table(
        {
            "defect": "right",
            "image": "left",
            "box x1 y1 x2 y2": "right",
            "area px": "right",
            **({"area mm²": "right"} if has_scale else {}),
            "length x width": "right",
            "angle": "right",
            "prob.": "right",
        },
        [
            [
                defect["id"],
                defect["image_name"] or f"image {defect['image_id']}",
                " ".join(str(edge) for edge in defect["box_xyxy"]),
                defect["area_px"],
                *([_square_mm(defect["area_mm2"])] if has_scale else []),
                f"{defect['major_axis_px']:.0f} x {defect['minor_axis_px']:.0f}",
                f"{defect['orientation_deg']:.0f}°",
                f"{defect['max_probability']:.2f}",
            ]
            for defect in shown
        ],
        empty="There are no such defects.",
    )


def _square_mm(area_mm2: float | None) -> str | None:
    return None if area_mm2 is None else f"{area_mm2:.2f}"
