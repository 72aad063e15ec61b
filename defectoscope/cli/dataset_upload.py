"""Brings staged pictures to the server: files to storage, pairs to be checked, and what can be in the revision back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from defectoscope.cli.dataset_staging import StagedPicture
from defectoscope.cli.output import progress
from defectoscope.cli.uploading import StoredFile, upload_paths
from defectoscope.dataset.formats import LeftOut

if TYPE_CHECKING:
    from defectoscope.client import Client
    from defectoscope.client.wire import DatasetEntry, LabelEntry, RegisteredLabel

#: The server decodes every image and label of a request before it answers, so requests are kept short.
_LABELS_AT_ONCE = 25
_THREADS = 4


def upload_pictures(
    client: Client, pictures: Sequence[StagedPicture], *, source: str
) -> tuple[list[DatasetEntry], list[LeftOut]]:
    """Store images and labels, have the server check each pair, and choose what can be in the revision.

    Args:
        client: the API.
        pictures: with their label files.
        source: where the labels come from, such as ``dataset:steel``.

    Returns:
        The entries of the revision, and what cannot be in it.

    Raises:
        DefectoscopeError: as `upload_paths` and the API say.
    """
    stored = upload_paths(client, [path for picture in pictures for path in (picture.image_path, picture.label_path)])
    return choose_entries(_register(client, pictures, stored, source=source), pictures)


def choose_entries(
    registered: Sequence[RegisteredLabel], pictures: Sequence[StagedPicture]
) -> tuple[list[DatasetEntry], list[LeftOut]]:
    """Return the entries of the revision and what is left out of it.

    An image stands in a revision once. Where the same bytes come twice, validation keeps them: a network must not be
    scored on an image that it was trained on.
    """
    by_name = {picture.name: picture for picture in pictures}
    entries: dict[int, DatasetEntry] = {}
    left_out: list[LeftOut] = []
    # Validation first, else in the given order: sorting is stable.
    for label in sorted(registered, key=lambda label: by_name[label["name"]].split != "val"):
        name, error = label["name"], label["error"]
        picture = by_name[name]
        if error is not None or label["image_id"] is None or label["label_id"] is None:
            problem = error or {"code": "unexpected", "message": "The server gave no reason."}
            left_out.append(LeftOut(name, problem["code"], problem["message"]))
        elif label["image_id"] in entries:
            earlier = entries[label["image_id"]]
            side = f", in {earlier['split']}" if earlier.get("split") else ""
            left_out.append(LeftOut(name, "image_twice", f"It is the same image as {earlier['name']}{side}."))
        else:
            entries[label["image_id"]] = {
                "label_id": label["label_id"],
                "name": name,
                "split": picture.split,
                "part": picture.part,
            }
    return sorted(entries.values(), key=lambda entry: entry["name"]), left_out


def _register(
    client: Client, pictures: Sequence[StagedPicture], stored: Mapping[Path, StoredFile], *, source: str
) -> list[RegisteredLabel]:
    labels: list[LabelEntry] = [
        {
            "name": picture.name,
            "image_uri": stored[picture.image_path].uri,
            "label_uri": stored[picture.label_path].uri,
            "part": picture.part,
        }
        for picture in pictures
    ]
    waiting = iter(labels)
    batches = iter(lambda: list(islice(waiting, _LABELS_AT_ONCE)), [])
    registered: list[RegisteredLabel] = []
    with progress("Checking labels", len(labels)) as bar, ThreadPoolExecutor(_THREADS) as pool:
        for answers in pool.map(lambda batch: client.labels.register(batch, source=source), batches):
            registered.extend(answers)
            bar.advance(len(answers))
    return registered
