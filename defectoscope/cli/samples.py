"""`defectoscope samples`: draw a series of sample images with exact labels, for a first try."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import typer

from defectoscope.cli.output import print_json, progress, say
from defectoscope.cli.session import JsonOption
from defectoscope.errors.api import InvalidRequest

app = typer.Typer(no_args_is_help=True, help="Draw sample images with exact labels, for a first try.")


@app.callback()
def _noun() -> None:
    """Draw sample images with exact labels, for a first try."""


@app.command()
def generate(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Where to; its images/ and labels/ must be empty.")],
    count: Annotated[int, typer.Option(min=1, metavar="N", help="How many images.")] = 100,
    seed: Annotated[int, typer.Option(min=0, metavar="S", help="The same seed gives the same bytes.")] = 0,
    layout: Annotated[
        Literal["split", "flat"], typer.Option(help="split: a dataset with train/ and val/; flat: a batch to inspect.")
    ] = "split",
    as_json: JsonOption = False,
) -> None:
    """Draw a series of textures with defects and their masks. No server is needed."""
    from defectoscope.samples import generate_samples  # numpy and Pillow, which no other command here needs

    with progress("Drawing", count) as bar:
        try:
            made = generate_samples(
                directory,
                count=count,
                seed=seed,
                layout=layout,
                on_progress=lambda done, total: bar.show(completed=done, total=total),
            )
        except OSError as exc:
            raise InvalidRequest(f"{directory} cannot be written: {exc.strerror}.") from exc
    if as_json:
        print_json({**dataclasses.asdict(made), "directory": str(made.directory)})
        return
    split = f" ({made.train_count} for training, {made.val_count} for validation)" if made.val_count else ""
    say(f"Drew {made.count} images{split} to {directory}; {made.defect_free_count} are without defects.")
