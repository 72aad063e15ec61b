"""`defectoscope models`: list and show model versions."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.text import Text

from defectoscope.cli.moments import format_time
from defectoscope.cli.output import (
    Cell,
    format_bytes,
    print_facts,
    print_json,
    print_json_items,
    print_table,
    print_title,
    say,
)
from defectoscope.cli.session import JsonOption, LimitOption, open_client

app = typer.Typer(no_args_is_help=True, help="List and show model versions.")


@app.command("list")
def list_models(limit: LimitOption = 50, as_json: JsonOption = False) -> None:
    """List model versions, newest first; the champion is the one that jobs use."""
    with open_client() as client:
        models = client.models.list(limit=limit or None)
        if as_json:
            print_json_items(models)
            return
        print_table(
            {
                "model": "right",
                "": "left",
                "architecture": "left",
                "encoder": "left",
                "input px": "right",
                "IoU defect": "right",
                "dataset": "left",
                "registered": "left",
            },
            [
                [
                    model["number"],
                    Text("champion", style="green") if model["is_champion"] else "",
                    model["architecture"],
                    model["encoder"],
                    _size(model),
                    f"{model['validation']['pooled']['iou_defect']:.3f}" if model["validation"] else None,
                    model["dataset"],
                    format_time(model["created_at"]),
                ]
                for model in models
            ],
            empty="There are no models yet; train one with `defectoscope training start`.",
        )


@app.command()
def show(
    number: Annotated[int, typer.Argument(metavar="N", min=1, help="Number of the model version.")],
    as_json: JsonOption = False,
) -> None:
    """Show a model version: its contract, its scores, its files."""
    with open_client() as client:
        model = client.models.get(number)
    if as_json:
        print_json(model)
        return
    print_title(f"Model {number}", Text("champion", style="green") if model["is_champion"] else "")
    print_facts(_facts(model), indent=2)
    if model["validation"]:
        _print_validation(model["validation"])
    say()
    print_table(
        {"variant": "left", "size": "right", "sha256": "left", "parity with the trained network": "left"},
        [
            [
                variant["precision"],
                format_bytes(variant["size_bytes"]),
                variant["sha256"][:12] + "…",
                _parity(variant.get("parity")),
            ]
            for variant in model["variants"]
        ],
        empty="It has no files.",
        indent=2,
    )


def _facts(model: dict[str, Any]) -> dict[str, Cell]:
    return {
        "network": f"{model['architecture']} with {model['encoder']}",
        "input": f"{_size(model)} px",
        "settings": f"threshold {model['threshold']:g}, min area {model['min_area_px']} px",
        "dataset": model["dataset"],
        "training run": model["training_run_id"],
        "registered": format_time(model["created_at"]),
    }


def _print_validation(validation: dict[str, Any]) -> None:
    say()
    say(f"  Validation on {validation['images']} images", style="bold")
    names = ("iou_defect", "iou_background", "iou_mean", "dice", "precision", "recall")
    rows: list[list[Cell]] = []
    for title, scores in (("pooled", validation.get("pooled")), ("per image", validation.get("mean"))):
        if scores:
            values = [scores.get(name, scores.get("iou") if name == "iou_mean" else None) for name in names]
            rows.append([title, *(None if value is None else f"{value:.3f}" for value in values)])
    print_table(
        {
            "": "left",
            "IoU defect": "right",
            "IoU background": "right",
            "IoU mean": "right",
            "Dice": "right",
            "precision": "right",
            "recall": "right",
        },
        rows,
        empty="",
        indent=2,
    )


def _parity(parity: dict[str, Any] | None) -> str | None:
    if not parity:
        return None
    figures = ((name, f"{value:g}" if isinstance(value, float) else value) for name, value in parity.items())
    return ", ".join(f"{name} {value}" for name, value in figures)


def _size(model: dict[str, Any]) -> str:
    width, height = model["input_size_wh"]
    return f"{width} x {height}"
