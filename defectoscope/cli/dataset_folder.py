"""Finds the labelled images of a directory of images and labels, as a reader of formats gives them.

Two layouts are read: one that says the split itself (``images/train``, ``images/val``, or ``train/images``,
``val/images``), and one that does not; there a ``manifest.csv`` may say it. The content of no picture is looked at.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from defectoscope.cli.local_files import find_in_folder
from defectoscope.dataset.formats import MANIFEST_FILE, Finding, LabelledPicture, LeftOut, Split, bare_parts
from defectoscope.errors.datasets import InvalidDataset

_SIDES: Mapping[str, Split] = {"train": "train", "val": "val"}


@dataclass(frozen=True, slots=True)
class Row:
    """What a manifest says about an image."""

    part: str | None
    split: Split | None


def read_folder(root: Path) -> list[Finding]:
    """Find images and labels by the rule of `defectoscope.layout`.

    Raises:
        NoImagesFound: there is no image at all.
        InvalidRequest: a folder cannot be read.
        InvalidDataset: there is a manifest that cannot be read.
    """
    found = find_in_folder(root)
    manifest = read_manifest(root)
    is_split = any(split_in_name(image.name) for image in found.images)
    findings: list[Finding] = []
    for image in found.images:
        split = split_in_name(image.name)
        if image.label_path is None:
            findings.append(LeftOut(image.name, "image_without_label", "There is no label for this image."))
        elif is_split and split is None:
            findings.append(LeftOut(image.name, "image_outside_split", "It lies in neither train nor val."))
        else:
            row = find_row(manifest, image.name)
            findings.append(
                LabelledPicture(
                    name=image.name,
                    image_path=image.path,
                    label=image.label_path,
                    split=split or row.split,
                    part=row.part,
                )
            )
    findings += [
        LeftOut(name, "label_without_image", "There is no image for this label.") for name in found.lone_labels
    ]
    return findings


def split_in_name(name: str) -> Split | None:
    """Return which side of the split a path says it is on.

    >>> split_in_name("images/val/a.jpg")
    'val'
    """
    sides = (_SIDES[part] for part in reversed(PurePosixPath(name).parts[:-1]) if part in _SIDES)
    return next(sides, None)


def read_manifest(root: Path) -> dict[str, Row]:
    """Read a ``manifest.csv`` in the folder or one level above, with the columns stem and group or split.

    ``group`` says which images show the same part or place, ``split`` is train or val. A column ``set`` names the
    folder that a row is about.

    Returns:
        A row for each stem; empty without such a file, or when it has no such columns.

    Raises:
        InvalidDataset: the file is not readable as CSV.
    """
    root = root.absolute()
    file = next((path for path in (root / MANIFEST_FILE, root.parent / MANIFEST_FILE) if path.is_file()), None)
    if file is None:
        return {}
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as exc:
        raise InvalidDataset(f"{file} is not readable as CSV.", reason=str(exc)) from exc
    return {
        row["stem"]: Row(part=row.get("group") or None, split=_SIDES.get(row.get("split") or ""))
        for row in rows
        if row.get("stem") and row.get("set", root.name) == root.name
    }


def find_row(manifest: Mapping[str, Row], name: str) -> Row:
    """Return what a manifest says about an image: by its path below images, train and val, else by its stem alone."""
    stem = PurePosixPath(*bare_parts(name)).with_suffix("")
    return manifest.get(str(stem)) or manifest.get(stem.name) or Row(None, None)
