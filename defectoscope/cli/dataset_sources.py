"""Opens what `datasets import` is given: finds out the format where none is said, and the files it consists of."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Literal

from defectoscope.cli.dataset_folder import read_folder
from defectoscope.cli.local_files import list_files
from defectoscope.dataset.formats import Finding, PictureFinder, read_coco, read_label_studio
from defectoscope.errors.api import InvalidRequest
from defectoscope.errors.datasets import InvalidDataset
from defectoscope.layout import is_label_name

ImportFormat = Literal["auto", "folder", "coco", "label-studio"]
_JsonFormat = Literal["coco", "label-studio"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_STARTS: Mapping[str, _JsonFormat] = {"{": "coco", "[": "label-studio"}
_LOOKED_AT_BYTES = 4096


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


def default_name(path: Path) -> str:
    """Return what a dataset is called without a name: as its directory, or as that of its annotation file."""
    path = path.absolute()
    return (path.parent if path.is_file() else path).name


def open_source(path: Path, *, chosen: ImportFormat, images: Path | None = None) -> Iterable[Finding]:
    """Find the labelled pictures of a directory or an annotation file.

    Args:
        path: a directory, or a JSON file.
        chosen: the format; auto takes labels where there are any, else annotation files by what they begin with.
        images: where the pictures of annotation files are; by default at ``path``, or beside the file.

    Raises:
        InvalidDataset: there is nothing of that format, or several formats.
        NoImagesFound: there is no image at all.
        InvalidRequest: a folder cannot be read.
    """
    if path.is_file():
        files = {path.name: path}
        root = path.parent
    else:
        files = dict(list_files(path))
        root = path
        if chosen == "folder" or (chosen == "auto" and any(is_label_name(name) for name in files)):
            return read_folder(path)
    annotations = {name: file for name, file in files.items() if PurePosixPath(name).suffix.lower() == ".json"}
    if chosen == "folder" or not annotations:
        if path.is_dir() and chosen == "auto":
            return read_folder(path)
        raise InvalidDataset(f"{path} is no directory of images and labels, and holds no JSON file.", path=str(path))
    found = chosen if chosen != "auto" else find_json_format(annotations)
    pictures = PictureFinder(dict(list_files(images or root)))
    if found == "coco":
        return read_coco(_instances(annotations), pictures=pictures)
    return read_label_studio(annotations, pictures=pictures)


def find_json_format(files: Mapping[str, Path]) -> _JsonFormat:
    """Return which format annotation files have: COCO is an object, Label Studio a list.

    Raises:
        InvalidDataset: they are of both, or of neither.
        InvalidRequest: one cannot be read.
    """
    found = {name: _STARTS.get(_first_character(path), None) for name, path in files.items()}
    formats = {name: value for name, value in found.items() if value is not None}
    if len(set(formats.values())) > 1:
        raise InvalidDataset(
            "There are files of COCO and of Label Studio; say which to take with --format, or name the file.",
            files=sorted(formats),
        )
    if not formats:
        raise InvalidDataset(
            f"{next(iter(files))} is neither COCO nor an export of Label Studio in JSON.", files=sorted(files)
        )
    return next(iter(formats.values()))


def _instances(files: Mapping[str, Path]) -> Mapping[str, Path]:
    """Return the files of instances where some are called so: COCO keeps captions and key points beside them."""
    instances = {name: path for name, path in files.items() if PurePosixPath(name).name.startswith("instances")}
    return instances or files


def _first_character(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            start = stream.read(_LOOKED_AT_BYTES)
    except OSError as exc:
        raise InvalidRequest(f"{path} cannot be read: {exc.strerror}.") from exc
    return start.decode("utf-8-sig", errors="replace").lstrip()[:1]
