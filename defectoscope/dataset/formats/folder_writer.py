"""Writes a revision as folders of images and labels, with a manifest of groups and splits."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

from defectoscope.dataset.formats.contract import RevisionPicture
from defectoscope.dataset.formats.new_directory import FileNames, new_directory
from defectoscope.layout import IMAGES_FOLDER, LABELS_FOLDER
from defectoscope.segmentation import encode_class_mask

MANIFEST_FILE = "manifest.csv"


def write_folder(pictures: Iterable[RevisionPicture], out: Path, *, with_split: bool) -> None:
    """Write ``images/`` and ``labels/``, and a ``manifest.csv`` with the columns stem, group and split.

    Labels are PNG of 8-bit grey with the values 0 background, 1 defect and 255 ignored.

    Args:
        pictures: of one revision.
        out: the directory; it must not exist, or be empty.
        with_split: with ``train`` and ``val`` below both folders; else the manifest alone says the split.

    Raises:
        ExportDirectoryNotEmpty: there is something at ``out``.
        InvalidRequest: it cannot be written.
    """
    names = FileNames()
    with new_directory(out) as root:
        for folder in (IMAGES_FOLDER, LABELS_FOLDER):
            (root / folder).mkdir()
        with (root / MANIFEST_FILE).open("w", encoding="utf-8", newline="") as stream:
            manifest = csv.writer(stream, lineterminator="\n")
            manifest.writerow(["stem", "group", "split"])
            for picture in pictures:
                name = names.take(picture)
                side = picture.split if with_split else ""
                write_file(root / IMAGES_FOLDER / side / name, picture.image)
                write_file(
                    (root / LABELS_FOLDER / side / name).with_suffix(".png"), encode_class_mask(picture.class_mask)
                )
                manifest.writerow([name.with_suffix("").as_posix(), picture.group or "", picture.split])


def write_file(path: Path, data: bytes) -> None:
    """Write a file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
