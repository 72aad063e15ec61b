"""`defectoscope models import`: bring in a model file that others made; a trainer wraps and checks it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from defectoscope.cli.model_ledger import account
from defectoscope.cli.output import note, print_json, say
from defectoscope.cli.session import JsonOption, open_client
from defectoscope.cli.uploading import upload_paths
from defectoscope.cli.watching import watch_until
from defectoscope.errors.api import InvalidRequest

if TYPE_CHECKING:
    from defectoscope.client import Client
    from defectoscope.client.wire import ModelImport

_FINAL_STATES = frozenset({"succeeded", "failed"})
_SIZE = re.compile(r"([1-9][0-9]{0,3})x([1-9][0-9]{0,3})")


def import_model(
    file: Annotated[Path, typer.Argument(metavar="FILE.onnx", help="The model file, everything in one file.")],
    name: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Name it is known by; by default that of the file.")
    ] = None,
    architecture: Annotated[str | None, typer.Option(metavar="TEXT", help="Of the network, for the record.")] = None,
    encoder: Annotated[str | None, typer.Option(metavar="TEXT", help="Of the network, for the record.")] = None,
    threshold: Annotated[
        float | None,
        typer.Option(min=0, max=1, metavar="P", help="Probability from which a pixel is defect; 0.5 when left out."),
    ] = None,
    min_area: Annotated[
        int | None, typer.Option(min=0, metavar="PX", help="Smaller regions are dropped; 16 when left out.")
    ] = None,
    input_size: Annotated[
        str | None,
        typer.Option(metavar="WxH", help="Size it was trained on, such as 256x256, where the file leaves it open."),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Dataset on whose validation images it is scored; else it cannot be compared."
        ),
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", metavar="", help="Stay until it is imported or refused.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Import a foreign ONNX model as a new model version.

    It takes what notebooks export: one file, float32 (N, 3, H, W) in, normalised as ImageNet, logits of one or two
    channels out. The trainer wraps it, and proves that both give the same masks. A file that it refuses is named with
    the reason, and no version appears. The new version is not in service until it is promoted.
    """
    options = {
        "architecture": architecture,
        "encoder": encoder,
        "threshold": threshold,
        "min_area_px": min_area,
        "input_size_wh": read_size(input_size),
        "dataset": dataset,
    }
    if not file.is_file():
        raise InvalidRequest(f"There is no file {file}.", path=str(file))
    with open_client() as client:
        stored = upload_paths(client, [file])[file]
        asked = client.models.request_import(
            sha256=stored.sha256,
            file_name=name or file.name,
            actor=account(),
            options={key: value for key, value in options.items() if value is not None},
        )
        if watch:
            note(f"Import {asked['id']} of {asked['file_name']} is asked for.")
            asked = _watch(client, asked["id"])
    if as_json:
        print_json(asked)
    else:
        _print_import(asked)
    if asked["state"] == "failed":
        raise typer.Exit(1)


def read_size(text: str | None) -> list[int] | None:
    """Read a width and a height such as ``256x256``.

    Raises:
        typer.BadParameter: it is no such size.
    """
    if text is None:
        return None
    found = _SIZE.fullmatch(text)
    if found is None:
        raise typer.BadParameter(f"{text!r} is not a size such as 256x256", param_hint="'--input-size'")
    return [int(side) for side in found.groups()]


def _watch(client: Client, import_id: int) -> ModelImport:
    """Say each state that an import comes to, and return it when it has ended."""
    said = ""

    def show(found: ModelImport) -> None:
        nonlocal said
        if found["state"] != said and found["state"] not in _FINAL_STATES:
            note(f"Import {import_id} is {found['state']}.")
        said = found["state"]

    return watch_until(
        lambda: client.models.get_import(import_id),
        is_over=lambda found: found["state"] in _FINAL_STATES,
        show=show,
    )


def _print_import(found: ModelImport) -> None:
    error = found["error"]
    if error is not None:
        say(f"{found['file_name']} was not imported: {error['message']} ({error['code']})", style="bold red")
    elif found["state"] == "succeeded":
        say(f"{found['file_name']} is model {found['model_version']}.")
        note(f"Put it into service with `defectoscope models promote {found['model_version']} --reason ...`.")
    else:
        say(f"Import {found['id']} of {found['file_name']} is asked for.")
        note("It shows up in `defectoscope models list` when it is done; with --watch this command waits for it.")
