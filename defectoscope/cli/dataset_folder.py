"""Finds the labelled images of a dataset on this machine and decides which of them are for validation.

Two layouts are read: one that says the split itself (``images/train``, ``images/val``, or ``train/images``,
``val/images``), and one that does not. For the latter the split is computed from content, so that it is the same
whenever and wherever the same files are imported, and an image that joins later moves no other.
"""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from defectoscope.cli.local_files import find_in_folder
from defectoscope.errors import InvalidDataset

Split = Literal["train", "val"]

_GROUPS_FILE = "manifest.csv"
_UNIT = 2**64
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """An image and its label; ``split`` is None where the layout does not say it."""

    name: str
    image_path: Path
    label_path: Path
    split: Split | None


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A file that is not in the dataset, and why."""

    name: str
    code: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetFolder:
    """The pairs of a folder, and what is in none."""

    pairs: list[Pair]
    left_out: list[LeftOut]


def check_name(name: str) -> str:
    """Return a name that a dataset may have. Asked before anything is uploaded; the server asks again.

    Raises:
        InvalidDataset: it may not.
    """
    if not _NAME.fullmatch(name):
        raise InvalidDataset(
            f"{name!r} cannot be the name of a dataset: letters, digits, dots, hyphens and underscores, at most 100; "
            "give another one with --name.",
            name=name,
        )
    return name


def find_dataset(root: Path) -> DatasetFolder:
    """Find images and labels by the rule of `defectoscope.layout`.

    Raises:
        InvalidDataset: there is no labelled image, or only one side of the split.
        NoImagesFound: there is no image at all.
        InvalidRequest: a folder cannot be read.
    """
    found = find_in_folder(root)
    left_out = [LeftOut(name, "label_without_image", "There is no image for this label.") for name in found.lone_labels]
    is_split = any(split_in_name(image.name) for image in found.images)
    pairs: list[Pair] = []
    for image in found.images:
        split = split_in_name(image.name)
        if image.label_path is None:
            left_out.append(LeftOut(image.name, "image_without_label", "There is no label for this image."))
        elif is_split and split is None:
            left_out.append(LeftOut(image.name, "image_outside_split", "It lies in neither train nor val."))
        else:
            pairs.append(Pair(name=image.name, image_path=image.path, label_path=image.label_path, split=split))
    if not pairs:
        raise InvalidDataset(
            f"There is no labelled image in {root}; expected are images/ and labels/ with files of equal names.",
            images=len(found.images),
        )
    if is_split and (missing := {"train", "val"} - {pair.split for pair in pairs}):
        raise InvalidDataset(f"There is no labelled image for {missing.pop()} in {root}.", directory=str(root))
    return DatasetFolder(pairs=pairs, left_out=left_out)


def split_in_name(name: str) -> Split | None:
    """Return which side of the split a path says it is on.

    >>> split_in_name("images/val/a.jpg")
    'val'
    """
    for part in reversed(PurePosixPath(name).parts[:-1]):
        if part == "train":
            return "train"
        if part == "val":
            return "val"
    return None


def read_groups(root: Path) -> dict[str, str]:
    """Read which images show the same part or place, from a ``manifest.csv`` in the folder or one level above.

    Returns:
        The group of each image's stem; empty without such a file, or when it has no columns ``stem`` and ``group``.

    Raises:
        InvalidDataset: the file is not readable as CSV.
    """
    root = root.absolute()
    file = next((path for path in (root / _GROUPS_FILE, root.parent / _GROUPS_FILE) if path.is_file()), None)
    if file is None:
        return {}
    try:
        with file.open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as exc:
        raise InvalidDataset(f"{file} is not readable as CSV.", reason=str(exc)) from exc
    return {
        row["stem"]: row["group"]
        for row in rows
        if row.get("stem") and row.get("group") and row.get("set", root.name) == root.name
    }


def choose_splits(
    pairs: Sequence[Pair], *, sha256_of: Mapping[Path, str], groups: Mapping[str, str], val_fraction: float
) -> dict[str, Split]:
    """Return the side of the split of each pair, by name: the layout's where it says one, else by content.

    Args:
        pairs: all with a split, or all without.
        sha256_of: content hash of each image.
        groups: group of an image's stem; images of a group, and images of equal content, go to one side.
        val_fraction: the share that goes to validation, about.

    Raises:
        InvalidDataset: there is only one image or group, so that one side would be empty.
    """
    said: dict[str, Split] = {pair.name: pair.split for pair in pairs if pair.split is not None}
    if said:
        return said
    group_of = {pair.name: groups.get(PurePosixPath(pair.name).stem, sha256_of[pair.image_path]) for pair in pairs}
    group_of = _join_equal_images(pairs, sha256_of=sha256_of, group_of=group_of)
    places = {group: _place(group) for group in group_of.values()}
    if len(places) == 1:
        raise InvalidDataset("A dataset needs at least two different images, one for training and one for validation.")
    val = {group for group, place in places.items() if place < val_fraction}
    # A handful of images may all fall on one side; the nearest one then changes over.
    ordered = sorted(places, key=lambda group: places[group])
    val = (val or {ordered[0]}) - ({ordered[-1]} if len(val) == len(places) else set())
    return {name: "val" if group in val else "train" for name, group in group_of.items()}


def _join_equal_images(
    pairs: Sequence[Pair], *, sha256_of: Mapping[Path, str], group_of: Mapping[str, str]
) -> dict[str, str]:
    """Give images of equal content the group of the first of them."""
    first: dict[str, str] = {}
    return {pair.name: first.setdefault(sha256_of[pair.image_path], group_of[pair.name]) for pair in pairs}


def _place(group: str) -> float:
    """Return a number in 0..1 that depends on the text alone."""
    return int.from_bytes(hashlib.sha256(group.encode()).digest()[:8]) / _UNIT
