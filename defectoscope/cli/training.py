"""`defectoscope training`: start a training run, watch its epochs, look at earlier ones."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from defectoscope.cli.moments import format_duration, format_time, seconds_between
from defectoscope.cli.output import (
    Cell,
    answer,
    note,
    print_facts,
    print_json,
    print_json_items,
    print_table,
    print_title,
    progress,
    say,
    state_text,
)
from defectoscope.cli.session import JsonOption, LimitOption, open_client
from defectoscope.cli.training_figures import (
    describe_encoder,
    describe_figures,
    epoch_title,
    format_metric,
    order_metrics,
)
from defectoscope.cli.watching import watch_until

if TYPE_CHECKING:
    from defectoscope.client import Client
    from defectoscope.client.wire import EpochMetrics, TrainingRun

app = typer.Typer(no_args_is_help=True, help="Start a training run, watch its epochs, look at earlier ones.")

FINAL_STATES = frozenset({"succeeded", "failed"})
RunId = Annotated[int, typer.Argument(metavar="ID", help="Number of the training run.")]


@app.command()
def start(
    dataset: Annotated[
        str, typer.Option(metavar="NAME", help="Dataset, as name (the latest revision) or name@number.")
    ],
    preset: Annotated[
        Literal["quick", "default"], typer.Option(help="The recipe; quick gives a usable model on a laptop.")
    ] = "default",
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change one value of the recipe; may be repeated."),
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", metavar="", help="Stay until the run has ended.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Start a training run."""
    config = {"preset": preset, **read_changes(changes or [])}
    with open_client() as client:
        run = client.training.start(dataset, config=config)
        if watch:
            note(f"Training run {run['id']} on {run['dataset']} is asked for.")
            _watch_and_report(client, run["id"], as_json=as_json)
            return
    if as_json:
        print_json(run)
        return
    say(f"Training run {run['id']} on {run['dataset']} is asked for.")
    note(f"Follow it with `defectoscope training watch {run['id']}`.")


@app.command("list")
def list_runs(limit: LimitOption = 50, as_json: JsonOption = False) -> None:
    """List training runs, newest first."""
    with open_client() as client:
        runs = client.training.list(limit=limit or None)
        if as_json:
            print_json_items(runs)
            return
        print_table(
            {
                "run": "right",
                "state": "left",
                "dataset": "left",
                "model": "right",
                "started": "left",
                "took": "right",
                "problem": "left",
            },
            [
                [
                    run["id"],
                    state_text(run["state"]),
                    run["dataset"],
                    run["model_version"],
                    format_time(run["started_at"]),
                    format_duration(seconds_between(run["started_at"], run["finished_at"])),
                    run["error"]["code"] if run["error"] else "",
                ]
                for run in runs
            ],
            empty="There are no training runs.",
        )


@app.command()
def show(run_id: RunId, as_json: JsonOption = False) -> None:
    """Show a training run: its recipe, its epochs, its model."""
    with open_client() as client:
        run = client.training.get(run_id)
    if as_json:
        print_json(run)
    else:
        print_run(run)


@app.command()
def watch(run_id: RunId, as_json: JsonOption = False) -> None:
    """Watch a training run until it has ended, then show it. The exit status is 1 when it failed."""
    with open_client() as client:
        _watch_and_report(client, run_id, as_json=as_json)


@app.command()
def cancel(run_id: RunId, as_json: JsonOption = False) -> None:
    """Cancel a training run; the trainer stops within seconds and nothing is published."""
    with open_client() as client:
        run = client.training.cancel(run_id)
    answer(run, f"Training run {run_id} is cancelled.", as_json=as_json)


@app.command()
def report(
    run_id: RunId,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where to.", show_default="training-run-ID.html")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Download the page with the curves and the validation overlays of a training run."""
    target = out or Path(f"training-run-{run_id}.html")
    with open_client() as client:
        client.training.download_report(run_id, target)
    answer({"file": str(target)}, f"Wrote {target}.", as_json=as_json)


@app.command()
def nights(limit: LimitOption = 50, as_json: JsonOption = False) -> None:
    """List the nights of the retraining schedule, newest first: what each came to, and why."""
    with open_client() as client:
        held = client.training.nights(limit=limit or None)
        if as_json:
            print_json_items(held)
            return
        print_table(
            {"night": "left", "state": "left", "run": "right", "new labels": "right", "why": "left"},
            [
                [
                    night["night"],
                    state_text(night["state"]),
                    night["training_run_id"],
                    night["new_labels"],
                    night["reason"],
                ]
                for night in held
            ],
            empty="No night was held yet; set DEFECTOSCOPE_NIGHT__DATASET to the dataset that is to be retrained.",
        )


def read_changes(changes: Sequence[str]) -> dict[str, Any]:
    """Read ``key=value`` pairs. A value that is JSON counts as JSON (``12``, ``null``, ``[256, 256]``), else as text.

    Raises:
        typer.BadParameter: there is no ``=`` or no key.
    """
    config: dict[str, Any] = {}
    for change in changes:
        key, separator, value = change.partition("=")
        if not separator or not key.strip():
            raise typer.BadParameter(f"{change!r} is not of the form key=value", param_hint="'--set'")
        try:
            config[key.strip()] = json.loads(value)
        except ValueError:
            config[key.strip()] = value
    return config


def watch_run(client: Client, run_id: int) -> TrainingRun:
    """Show epochs as they end until the run has, and return it then."""
    shown = 0
    encoder_shown = False
    with progress(f"Training run {run_id}", None) as bar:

        def show_epochs(run: TrainingRun) -> None:
            nonlocal shown, encoder_shown
            encoder = describe_encoder(run)
            if encoder is not None and not encoder_shown:
                bar.line(f"encoder {encoder}")
                encoder_shown = True
            for epoch in run["metrics"][shown:]:
                bar.line(describe_epoch(epoch, run["config"].get("epochs")))
            shown = max(shown, len(run["metrics"]))
            total = run["config"].get("epochs")
            bar.show(
                completed=shown, total=total if isinstance(total, int) else None, detail=run["stage"] or run["state"]
            )

        return watch_until(
            lambda: client.training.get(run_id), is_over=lambda run: run["state"] in FINAL_STATES, show=show_epochs
        )


def describe_epoch(epoch: EpochMetrics, total: object) -> str:
    """Return one line about an epoch."""
    of = f"/{total}" if isinstance(total, int) else ""
    values = epoch["values"]
    figures = "  ".join(f"{epoch_title(name)} {format_metric(name, values[name])}" for name in order_metrics(values))
    return f"epoch {epoch['epoch']}{of}  {figures}"


def print_run(run: TrainingRun) -> None:
    """Print everything about a training run."""
    print_title(f"Training run {run['id']}", state_text(run["state"]))
    took = format_duration(seconds_between(run["started_at"], run["finished_at"]))
    facts: dict[str, Cell] = {
        "dataset": run["dataset"],
        "asked for by": "the night" if run["trigger"] == "night" else "a person",
        "recipe": ", ".join(f"{name} {_plain(value)}" for name, value in run["config"].items()),
        "stage": run["stage"] if run["state"] == "running" else None,
        "asked for": format_time(run["created_at"]),
        "started": format_time(run["started_at"]),
        "finished": f"{format_time(run['finished_at'])}, after {took}" if took else None,
        "attempts": f"{run['attempts']}; it went on from its last checkpoint" if run["attempts"] > 1 else None,
        **describe_figures(run),
        "model": run["model_version"],
        "report": f"defectoscope training report {run['id']}" if run["has_report"] else None,
    }
    print_facts(facts, indent=2)
    if run["error"]:
        say()
        say(f"  {run['error']['message']} ({run['error']['code']})", style="bold red")
    if run["metrics"]:
        names = order_metrics(name for epoch in run["metrics"] for name in epoch["values"])
        say()
        print_table(
            {"epoch": "right", **{epoch_title(name): "right" for name in names}},
            [
                [
                    epoch["epoch"],
                    *(
                        format_metric(name, epoch["values"][name]) if name in epoch["values"] else None
                        for name in names
                    ),
                ]
                for epoch in run["metrics"]
            ],
            empty="",
            indent=2,
        )


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _watch_and_report(client: Client, run_id: int, *, as_json: bool) -> None:
    run = watch_run(client, run_id)
    if as_json:
        print_json(run)
    else:
        print_run(run)
    if run["state"] != "succeeded":
        raise typer.Exit(1)
