"""`defectoscope datasets`: import labelled images as a dataset revision, list and show revisions."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from defectoscope.cli.dataset_folder import LeftOut, Pair, check_name, choose_splits, find_dataset, read_groups
from defectoscope.cli.job_report import group_errors
from defectoscope.cli.moments import format_time
from defectoscope.cli.output import (
    note,
    print_facts,
    print_json,
    print_json_items,
    print_table,
    print_title,
    progress,
    say,
)
from defectoscope.cli.session import JsonOption, LimitOption, open_client
from defectoscope.cli.uploading import StoredFile, upload_paths
from defectoscope.errors import InvalidDataset

if TYPE_CHECKING:
    from defectoscope.client import Client
    from defectoscope.client.wire import Dataset, DatasetEntry, LabelEntry, RegisteredLabel

app = typer.Typer(no_args_is_help=True, help="Import labelled images as a dataset revision, list and show revisions.")

#: The server decodes every image and label of a request before it answers, so requests are kept short.
_LABELS_AT_ONCE = 25
_THREADS = 4


@app.command("import")
def import_dataset(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="Holds images/ and labels/, with or without train/ and val/ below.")
    ],
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name of the dataset; by default that of the directory.")
    ] = None,
    val_fraction: Annotated[
        float, typer.Option(min=0.01, max=0.9, metavar="F", help="Share for validation, where the layout says none.")
    ] = 0.2,
    as_json: JsonOption = False,
) -> None:
    """Import a directory as a dataset revision; an unchanged set is the revision it already is.

    Where the layout has no train/ and val/, the split is computed from the content, the same every time; a manifest.csv
    with the columns stem and group, in DIR or above it, keeps images of one group together.
    """
    dataset_name = check_name(name or directory.absolute().name)
    folder = find_dataset(directory)
    note(f"Found {len(folder.pairs)} images with labels.")
    with open_client() as client:
        stored = upload_paths(client, [path for pair in folder.pairs for path in (pair.image_path, pair.label_path)])
        splits = choose_splits(
            folder.pairs,
            sha256_of={path: file.sha256 for path, file in stored.items()},
            groups=read_groups(directory),
            val_fraction=val_fraction,
        )
        registered = _register(client, folder.pairs, stored, source=f"dataset:{dataset_name}")
        entries, rejected = choose_entries(registered, splits)
        left_out = [*folder.left_out, *rejected]
        if not entries:
            raise InvalidDataset("No image of the directory can be used with its label.", left_out=_as_json(left_out))
        dataset = client.datasets.create(dataset_name, entries)
    if as_json:
        print_json({"dataset": dataset, "left_out": _as_json(left_out)})
        return
    _print_dataset(dataset)
    _print_left_out(left_out)


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
def show(
    reference: Annotated[
        str, typer.Argument(metavar="NAME", help="The dataset, as name (the latest revision) or name@number.")
    ],
    as_json: JsonOption = False,
) -> None:
    """Show a dataset revision."""
    with open_client() as client:
        dataset = client.datasets.get(reference)
    if as_json:
        print_json(dataset)
    else:
        _print_dataset(dataset)


def choose_entries(
    registered: Sequence[RegisteredLabel], splits: Mapping[str, str]
) -> tuple[list[DatasetEntry], list[LeftOut]]:
    """Return the entries of the revision and what is left out of it.

    An image stands in a revision once. Where the same bytes come twice, validation keeps them: a network must not be
    scored on an image that it was trained on.
    """
    entries: dict[int, DatasetEntry] = {}
    left_out: list[LeftOut] = []
    # Validation first, else in the given order: sorting is stable.
    for label in sorted(registered, key=lambda label: splits[label["name"]] != "val"):
        name, error = label["name"], label["error"]
        if error is not None or label["image_id"] is None or label["label_id"] is None:
            problem = error or {"code": "unexpected", "message": "The server gave no reason."}
            left_out.append(LeftOut(name, problem["code"], problem["message"]))
        elif label["image_id"] in entries:
            earlier = entries[label["image_id"]]
            reason = f"It is the same image as {earlier['name']}, in {earlier['split']}."
            left_out.append(LeftOut(name, "image_twice", reason))
        else:
            entries[label["image_id"]] = {"label_id": label["label_id"], "name": name, "split": splits[name]}
    return sorted(entries.values(), key=lambda entry: entry["name"]), left_out


def _register(
    client: Client, pairs: Sequence[Pair], stored: dict[Path, StoredFile], *, source: str
) -> list[RegisteredLabel]:
    labels: list[LabelEntry] = [
        {"name": pair.name, "image_uri": stored[pair.image_path].uri, "label_uri": stored[pair.label_path].uri}
        for pair in pairs
    ]
    waiting = iter(labels)
    batches = iter(lambda: list(islice(waiting, _LABELS_AT_ONCE)), [])
    registered: list[RegisteredLabel] = []
    with progress("Checking labels", len(labels)) as bar, ThreadPoolExecutor(_THREADS) as pool:
        for answers in pool.map(lambda batch: client.labels.register(batch, source=source), batches):
            registered.extend(answers)
            bar.advance(len(answers))
    return registered


def _print_dataset(dataset: Dataset) -> None:
    print_title(f"Dataset {dataset['reference']}")
    print_facts(
        {
            "training": f"{dataset['train_count']} images",
            "validation": f"{dataset['val_count']} images",
            "sha256": dataset["sha256"],
            "imported": format_time(dataset["created_at"]),
        },
        indent=2,
    )


def _print_left_out(left_out: Sequence[LeftOut]) -> None:
    if not left_out:
        return
    say()
    say(f"Left out: {len(left_out)} {'file' if len(left_out) == 1 else 'files'}", style="bold")
    groups = group_errors((item.name, {"code": item.code, "message": item.reason}) for item in left_out)
    print_table(
        {"count": "right", "code": "left", "why": "left", "for example": "left"},
        [[group.count, group.code, group.message, ", ".join(group.names)] for group in groups],
        empty="",
    )


def _as_json(left_out: Sequence[LeftOut]) -> list[dict[str, str]]:
    return [dataclasses.asdict(item) for item in left_out]
