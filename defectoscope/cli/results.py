"""`defectoscope results`: list and show results, download their masks and overlays."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from defectoscope.cli.moments import format_time
from defectoscope.cli.output import (
    answer,
    clean,
    print_facts,
    print_json,
    print_json_items,
    print_table,
    print_title,
    progress,
    state_text,
)
from defectoscope.cli.session import JsonOption, LimitOption, open_client
from defectoscope.errors.api import InvalidRequest
from defectoscope.errors.retention import DeletedByRetention
from defectoscope.errors.storage import ObjectNotFound
from defectoscope.layout import OutputNames

if TYPE_CHECKING:
    from defectoscope.client import Client
    from defectoscope.client.wire import JobItem

app = typer.Typer(no_args_is_help=True, help="List and show results, download their masks and overlays.")

What = Literal["masks", "overlays", "both"]
_THREADS = 8
_AT_ONCE = 256


@app.command("list")
def list_results(
    job: Annotated[int | None, typer.Option(metavar="ID", help="Only of this job.")] = None,
    image: Annotated[int | None, typer.Option(metavar="ID", help="Only of this image.")] = None,
    verdict: Annotated[Literal["clean", "defective"] | None, typer.Option(help="Only with this verdict.")] = None,
    limit: LimitOption = 50,
    as_json: JsonOption = False,
) -> None:
    """List results."""
    with open_client() as client:
        results = client.results.list(job=job, image=image, verdict=verdict, limit=limit or None)
        if as_json:
            print_json_items(results)
            return
        print_table(
            {
                "result": "right",
                "image": "left",
                "verdict": "left",
                "defects": "right",
                "defect area": "right",
                "model": "right",
                "computed": "left",
            },
            [
                [
                    result["id"],
                    result["image_name"] or f"image {result['image']['id']}",
                    state_text(result["verdict"]),
                    result["defect_count"],
                    f"{result['defect_fraction']:.3%}",
                    result["model_version"],
                    format_time(result["created_at"]),
                ]
                for result in results
            ],
            empty="There are no such results.",
        )


@app.command()
def show(
    result_id: Annotated[int, typer.Argument(metavar="ID", help="Number of the result.")], as_json: JsonOption = False
) -> None:
    """Show a result and how it was computed."""
    with open_client() as client:
        result = client.results.get(result_id)
    if as_json:
        print_json(result)
        return
    print_title(f"Result {result_id}", state_text(result["verdict"]))
    print_facts(
        {
            "image": f"{result['image']['id']} ({result['image']['sha256'][:12]}…)",
            "defects": f"{result['defect_count']}, together {result['defect_px']} px ({result['defect_fraction']:.3%})",
            "model": f"{result['model_version']} ({result['variant']}) on {result['provider']}, "
            f"ONNX Runtime {result['runtime_version']}",
            "settings": f"threshold {result['threshold']:g}, min area {result['min_area_px']} px",
            "resize": _describe_resizing(result),
            "latency": f"{result['latency_ms']:.1f} ms" if result["latency_ms"] is not None else None,
            "mask": result["mask_uri"],
            "overlay": result["overlay_uri"],
            "deleted": format_time(result["deleted_at"]),
            "computed": format_time(result["created_at"]),
        },
        indent=2,
    )


def _describe_resizing(result: dict[str, Any]) -> str:
    parts = [result["resize_policy"]]
    if result["resize_policy"] == "tile":
        parts.append(f"{result['tile_count']} tiles")
    if result["model_scale"] is not None:
        parts.append(f"{result['model_scale']:.3g} model px for each px")
    return ", ".join(parts)


@app.command()
def download(
    job: Annotated[int, typer.Option(metavar="ID", help="The job whose results are wanted.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where to; made if need be.")],
    what: Annotated[What, typer.Option(help="What is wanted.")] = "both",
    as_json: JsonOption = False,
) -> None:
    """Download the masks (PNG) and overlays (JPEG) of a job.

    They lie in masks/ and overlays/ under the paths and stems that the images have in the job; images without an
    overlay are left out there.
    """
    kinds = ("masks", "overlays") if what == "both" else (what,)
    with open_client() as client:
        total = client.jobs.get(job)["images"]["succeeded"]
        with progress("Downloading", total) as bar, ThreadPoolExecutor(_THREADS) as pool:
            counts = dict.fromkeys(kinds, 0)
            names = OutputNames()
            items = ((item, names.take(item["name"])) for item in client.jobs.items(job, state="succeeded"))
            while batch := list(islice(items, _AT_ONCE)):
                for written in pool.map(lambda entry: _fetch(client, *entry, out=out, kinds=kinds), batch):
                    bar.advance()
                    for kind in written:
                        counts[kind] += 1
    parts = " and ".join(f"{count} {kind}" for kind, count in counts.items())
    sentence = f"Downloaded {parts} of {total} images to {out}."
    answer({"directory": str(out), **counts}, sentence, as_json=as_json)


def _fetch(client: Client, item: JobItem, name: str, *, out: Path, kinds: Sequence[str]) -> list[str]:
    """Download what there is of one image and return the kinds that were written."""
    result_id = item["result_id"]
    if result_id is None:
        return []
    written = []
    for kind in kinds:
        suffix = ".png" if kind == "masks" else ".jpg"
        target = place_below(out / kind, name, suffix=suffix)
        _make_folder(target.parent)
        try:
            if kind == "masks":
                client.results.download_mask(result_id, target)
            else:
                client.results.download_overlay(result_id, target)
        except DeletedByRetention:
            continue
        except ObjectNotFound:
            # The job kept no overlay of this image, as was asked for.
            if kind == "overlays":
                continue
            raise
        written.append(kind)
    return written


def place_below(root: Path, name: str, *, suffix: str) -> Path:
    """Return where a file of this name goes, always below the root, whatever the name says."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    safe = [clean(part).replace(":", "_") for part in parts if part not in {"/", "..", "."}] or ["image"]
    return root.joinpath(*safe[:-1], safe[-1] + suffix)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise InvalidRequest(f"{folder} cannot be made: {exc.strerror}.") from exc
