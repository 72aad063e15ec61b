"""`defectoscope predict`: segment files on this machine, without any server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from defectoscope.cli.session import JsonOption
from defectoscope.cli.worker_process import run_worker


def predict(
    images: Annotated[list[str], typer.Argument(metavar="IMAGES", help="Image files or directories.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where masks and overlays go; made if need be.")],
    model: Annotated[
        str, typer.Option(metavar="FILE|N", help="A model file, or the number of a model version (needs the servers).")
    ],
    overlays: Annotated[
        bool, typer.Option("--overlays", metavar="", help="Also write pictures with the defects drawn in.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Segment image files on this machine. With a model file no server is needed."""
    options = ["--out", str(out), "--model", model]
    flags = [flag for flag, wanted in (("--overlays", overlays), ("--json", as_json)) if wanted]
    # After the double dash nothing is an option, not even a file called -x.jpg.
    status = run_worker(["predict", *options, *flags, "--", *images])
    raise typer.Exit(status if status >= 0 else 128 - status)
