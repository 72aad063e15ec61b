"""`defectoscope datasets`: import labelled images as a dataset revision, export, list and show revisions."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from defectoscope.cli.moments import format_time
from defectoscope.cli.output import (
    answer,
    note,
    print_facts,
    print_json,
    print_json_items,
    print_table,
    print_title,
    progress,
)
from defectoscope.cli.session import JsonOption, LimitOption, open_client

if TYPE_CHECKING:
    from defectoscope.client.wire import Dataset
    from defectoscope.dataset.formats import RevisionPicture

app = typer.Typer(no_args_is_help=True, help="Import labelled images as a dataset revision, export, list and show.")

Reference = Annotated[
    str, typer.Argument(metavar="NAME", help="The dataset, as name (the latest revision) or name@number.")
]


@app.command("import")
def import_dataset(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="PATH", help="A directory with images/ and labels/, one with annotation files, or such a file."
        ),
    ],
    chosen: Annotated[
        Literal["auto", "folder", "coco", "label-studio"],
        typer.Option("--format", help="auto: folder where there are labels, else what the annotation files are."),
    ] = "auto",
    images: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where the images of annotation files are; by default in or below PATH."),
    ] = None,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name of the dataset; by default that of the directory.")
    ] = None,
    label_values: Annotated[
        Literal["auto", "index"],
        typer.Option(help="index: label files hold 0 background, 1 defect, 255 ignored; other values are refused."),
    ] = "auto",
    extend: Annotated[
        bool, typer.Option("--extend", metavar="", help="Add to the latest revision; a newer label replaces an older.")
    ] = False,
    val_fraction: Annotated[
        float, typer.Option(min=0.01, max=0.9, metavar="F", help="Share for validation, where nothing says the split.")
    ] = 0.2,
    as_json: JsonOption = False,
) -> None:
    """Import labelled images as a dataset revision; an unchanged set is the revision it already is.

    A split that is said is kept: by folders train/ and val/, by annotation files for train and val, or by the columns
    stem and split of a manifest.csv in PATH or above it. Its column group names the part that an image shows; images
    of one part stay on one side. Where nothing says the split, the server chooses it once and for ever.

    An image that an annotation file lists without a region is clean. A label that cannot be read whole leaves its image
    out, and the report says why.
    """
    from defectoscope.cli.dataset_report import (
        check_any,
        count_taken,
        print_findings,
        print_taken,
        read_moves,
        to_json,
    )
    from defectoscope.cli.dataset_sources import check_name, default_name, open_source
    from defectoscope.cli.dataset_staging import find_one_sided, stage
    from defectoscope.cli.dataset_upload import upload_pictures

    dataset_name = check_name(name or default_name(path))
    with tempfile.TemporaryDirectory(prefix="defectoscope-labels-") as scratch:
        findings = open_source(path, chosen=chosen, images=images)
        with progress("Reading labels", None) as bar:
            staged = stage(findings, Path(scratch), label_values=label_values, on_label=bar.advance)
        check_any(staged.pictures, staged.left_out, as_json=as_json)
        note(f"Found {_count(len(staged.pictures), 'image')} with labels.")
        with open_client() as client:
            entries, rejected = upload_pictures(client, staged.pictures, source=f"dataset:{dataset_name}")
            left_out = [*staged.left_out, *rejected]
            check_any(entries, left_out, as_json=as_json)
            dataset = client.datasets.create(dataset_name, entries, extends=extend, val_fraction=val_fraction)
    names = {entry["name"] for entry in entries}
    taken = [picture for picture in staged.pictures if picture.name in names]
    remarks = [*staged.remarks, *find_one_sided(taken)]
    if as_json:
        report = {"taken": count_taken(taken), "left_out": to_json(left_out), "remarks": to_json(remarks)}
        print_json({"dataset": dataset, **report})
        return
    _print_dataset(dataset)
    print_taken(taken)
    print_findings("Put elsewhere than asked", read_moves(dataset))
    print_findings("Left out", left_out)
    print_findings("Worth knowing", remarks)


@app.command("export")
def export_dataset(
    reference: Reference,
    chosen: Annotated[
        Literal["folder", "flat", "coco", "label-studio", "parquet"],
        typer.Option("--format", help="folder: images/ and labels/ with train/ and val/ below; flat: without those."),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where to; it must not exist, or be empty.")],
    as_json: JsonOption = False,
) -> None:
    """Write the images and labels of a dataset revision to files.

    Label files are PNG of 8-bit grey with 0 background, 1 defect, 255 ignored. COCO has a run-length encoded region for
    each defect and a crowd for each ignored region; Label Studio has brush strokes. All of these can be imported again
    with equal labels, splits and parts. Parquet has one row for each image, for other tools. What is written appears
    whole or not at all.
    """
    from defectoscope.cli.dataset_export import fetch_pictures, name_groups, write

    with open_client() as client:
        dataset = client.datasets.get(reference)
        total = dataset["train_count"] + dataset["val_count"]
        # Listed twice: the addresses of the second listing are as fresh as they can be.
        groups = name_groups(client.datasets.items(dataset["reference"]))
        with progress("Exporting", total) as bar:

            def pictures() -> Iterator[RevisionPicture]:
                for picture in fetch_pictures(client.datasets.items(dataset["reference"]), groups=groups):
                    yield picture
                    bar.advance()

            write(pictures(), out, chosen=chosen)
    answer(
        {"dataset": dataset, "format": chosen, "directory": str(out)},
        f"Wrote {_count(total, 'image')} of {dataset['reference']} with labels to {out}.",
        as_json=as_json,
    )


@app.command("list")
def list_datasets(limit: LimitOption = 50, as_json: JsonOption = False) -> None:
    """List dataset revisions, newest first."""
    with open_client() as client:
        datasets = client.datasets.list(limit=limit or None)
        if as_json:
            print_json_items(datasets)
            return
        print_table(
            {"dataset": "left", "train": "right", "val": "right", "imported": "left"},
            [
                [dataset["reference"], dataset["train_count"], dataset["val_count"], format_time(dataset["created_at"])]
                for dataset in datasets
            ],
            empty="There are no datasets.",
        )


@app.command()
def show(reference: Reference, as_json: JsonOption = False) -> None:
    """Show a dataset revision."""
    with open_client() as client:
        dataset = client.datasets.get(reference)
    if as_json:
        print_json(dataset)
    else:
        _print_dataset(dataset)


def _print_dataset(dataset: Dataset) -> None:
    print_title(f"Dataset {dataset['reference']}")
    print_facts(
        {
            "training": _count(dataset["train_count"], "image"),
            "validation": _count(dataset["val_count"], "image"),
            "groups": dataset["groups"],
            "sha256": dataset["sha256"],
            "imported": format_time(dataset["created_at"]),
        },
        indent=2,
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
