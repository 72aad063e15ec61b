"""`defectoscope models`: list and show model versions; its other verbs are in the model_*.py files beside this one."""

from __future__ import annotations

from typing import Any

import typer
from rich.text import Text

from defectoscope.cli.model_compare import compare
from defectoscope.cli.model_figures import describe_figures, describe_operating_point
from defectoscope.cli.model_files import bundle, export
from defectoscope.cli.model_imports import import_model
from defectoscope.cli.model_ledger import (
    Number,
    describe_action,
    history,
    promote,
    retire,
    rollback,
)
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

app = typer.Typer(
    no_args_is_help=True, help="Look at model versions, decide which one is in service, bring models in and out."
)

#: Widest cell of free text; longer text goes on below.
_TEXT_WIDTH = 60


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
                "mean IoU": "right",
                "scored on": "left",
                "files": "left",
                "registered": "left",
            },
            [
                [
                    model["number"],
                    _standing(model),
                    model["architecture"],
                    model["encoder"],
                    _size(model),
                    f"{model['validation']['mean']['iou_defect']:.3f}" if model["validation"] else None,
                    model["validated_on"],
                    _published(model),
                    format_time(model["created_at"]),
                ]
                for model in models
            ],
            empty="There are no models yet; train one with `defectoscope training start`.",
        )


@app.command()
def show(number: Number, as_json: JsonOption = False) -> None:
    """Show a model version: its contract, its scores, its files, and every decision about it."""
    with open_client() as client:
        model = client.models.get(number)
    if as_json:
        print_json(model)
        return
    print_title(f"Model {number}", _standing(model))
    print_facts(_facts(model), indent=2)
    _print_evaluations(model["evaluations"])
    _print_variants(model["variants"])
    _print_ledger(model["ledger"])


app.command()(compare)
app.command()(promote)
app.command()(rollback)
app.command()(retire)
app.command()(history)
app.command("import")(import_model)
app.command()(export)
app.command()(bundle)


def _standing(model: dict[str, Any]) -> Text | str:
    if model["is_champion"]:
        return Text("champion", style="green")
    if model["weights_dropped_at"]:
        return Text("dropped", style="dim")
    return Text("retired", style="dim") if model["retired_at"] else ""


def _published(model: dict[str, Any]) -> str | None:
    return ", ".join(variant["precision"] for variant in model["variants"] if variant["is_published"]) or None


_POLICIES = {"stretch": "stretched to it", "letterbox": "letterboxed in it", "tile": "cut into tiles of it"}


def _facts(model: dict[str, Any]) -> dict[str, Cell]:
    return {
        "network": f"{model['architecture']}, encoder {model['encoder']}",
        "input": f"{_size(model)} px, images {_POLICIES[model['resize_policy']]}",
        "settings": f"threshold {model['threshold']:g}, min area {model['min_area_px']} px",
        "came from": "an import" if model["origin"] == "import" else "training",
        "dataset": model["dataset"],
        "training run": model["training_run_id"],
        "registered": format_time(model["created_at"]),
        "retired": format_time(model["retired_at"]),
        "files dropped": format_time(model["weights_dropped_at"]),
        **describe_operating_point(model["operating_point"]),
    }


def _print_evaluations(evaluations: list[dict[str, Any]]) -> None:
    say()
    say("  Scores on validation images", style="bold")
    names = ("iou_defect", "iou_background", "iou", "dice")
    print_table(
        {
            "dataset": "left",
            "file": "left",
            "images": "right",
            "": "left",
            "IoU defect": "right",
            "IoU background": "right",
            "IoU mean": "right",
            "Dice": "right",
            "precision": "right",
            "recall": "right",
        },
        [
            [
                evaluation["dataset"] if kind == "mean" else "",
                evaluation["precision"] if kind == "mean" else "",
                evaluation["validation"]["images"] if kind == "mean" else "",
                title,
                *(_score(evaluation["validation"][kind], name) for name in (*names, "precision", "recall")),
            ]
            for evaluation in evaluations
            if evaluation["validation"]
            for kind, title in (("mean", "per image"), ("pooled", "pooled"))
        ],
        empty="It was never scored.",
        indent=2,
    )


def _score(scores: dict[str, Any], name: str) -> str | None:
    value = scores.get(name, scores.get("iou_mean") if name == "iou" else None)
    return None if value is None else f"{value:.3f}"


def _print_variants(variants: list[dict[str, Any]]) -> None:
    say()
    say("  Files", style="bold")
    print_table(
        {"variant": "left", "size": "right", "sha256": "left", "parity with the trained network": "left", "": "left"},
        [
            [
                variant["precision"],
                None if variant["size_bytes"] is None else format_bytes(variant["size_bytes"]),
                None if variant["sha256"] is None else variant["sha256"][:12] + "…",
                ", ".join(f"{name} {cell}" for name, cell in describe_figures(variant["parity"]).items()) or None,
                "" if variant["is_published"] else f"not published: {variant['reason'] or 'the file was dropped'}",
            ]
            for variant in variants
        ],
        empty="It has no files.",
        indent=2,
        column_width=_TEXT_WIDTH,
    )


def _print_ledger(lines: list[dict[str, Any]]) -> None:
    say()
    say("  Decisions", style="bold")
    print_table(
        {"when": "left", "what": "left", "by": "left", "why": "left"},
        [[format_time(line["created_at"]), describe_action(line), line["actor"], line["reason"]] for line in lines],
        empty="Nothing was decided about it.",
        indent=2,
        column_width=_TEXT_WIDTH,
    )


def _size(model: dict[str, Any]) -> str:
    width, height = model["input_size_wh"]
    return f"{width} x {height}"
