"""`defectoscope predict`: segment files on this machine. Only a version number, or the champion, needs servers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from defectoscope.cli.session import JsonOption
from defectoscope.cli.worker_process import run_worker


def predict(
    images: Annotated[list[str], typer.Argument(metavar="IMAGES", help="Image files or directories.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where masks and overlays go; made if need be.")],
    model: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|N",
            help="A model file; or the number of a model version, by default the champion, of servers.",
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, metavar="P", help="Probability from which a pixel is defect; by default the model's."
        ),
    ] = None,
    min_area: Annotated[
        int | None, typer.Option(min=1, metavar="PX", help="Smaller regions are dropped; by default the model's.")
    ] = None,
    resize_policy: Annotated[
        Literal["stretch", "letterbox", "tile"] | None,
        typer.Option(help="How images come to the model's size; by default as the model was made for."),
    ] = None,
    overlays: Annotated[bool, typer.Option(metavar="", help="Draw the defects of defective images.")] = True,
    as_json: JsonOption = False,
) -> None:
    """Segment image files on this machine. With a model file no server is needed."""
    options = ["--out", str(out), "--overlays" if overlays else "--no-overlays"]
    given = {
        "--model": model,
        "--threshold": threshold,
        "--min-area": min_area,
        "--resize-policy": resize_policy,
    }
    for name, value in given.items():
        if value is not None:
            options += [name, str(value)]
    if as_json:
        options.append("--json")
    # After the double dash nothing is an option, not even a file called -x.jpg.
    status = run_worker(["predict", *options, "--", *images])
    raise typer.Exit(status if status >= 0 else 128 - status)
