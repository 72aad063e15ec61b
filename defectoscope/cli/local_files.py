"""Finds images and their labels on this machine, by the rules of `defectoscope.layout`. Reads names, never content."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from defectoscope.errors.api import InvalidRequest
from defectoscope.errors.jobs import NoImagesFound
from defectoscope.layout import (
    IMAGE_EXTENSIONS,
    IMAGES_FOLDER,
    LABELS_FOLDER,
    is_image_name,
    is_label_name,
    pair_labels,
    stem,
)

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalImage:
    """An image with its name in the job or dataset, and its label if it has one."""

    name: str
    path: Path
    label_path: Path | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a folder holds.

    Attributes:
        images: in the order of their names.
        lone_labels: names of labels that belong to no image.
        ignored_count: files that are neither images nor labels.
    """

    images: list[LocalImage]
    lone_labels: list[str]
    ignored_count: int

    @property
    def labelled_count(self) -> int:
        """How many images have a label."""
        return sum(image.label_path is not None for image in self.images)


def find_in_folder(root: Path, *, labels_root: Path | None = None) -> Found:
    """Find the images below a folder and their labels.

    Args:
        root: the folder. One that is called ``images`` takes its labels from ``labels`` beside it.
        labels_root: where the labels are instead: below it, with the image's path and another extension.

    Raises:
        NoImagesFound: there is no image.
        InvalidRequest: a folder cannot be read.
    """
    files = dict(list_files(root))
    if labels_root is None and root.name == IMAGES_FOLDER and (root.parent / LABELS_FOLDER).is_dir():
        labels_root = root.parent / LABELS_FOLDER
    if labels_root is None:
        taken = [name for name in files if _has_image_extension(name)]
        pairs = {name: files[label] if label else None for name, label in pair_labels(taken).items()}
        labels = {name: files[name] for name in taken if is_label_name(name) and name not in pairs}
    else:
        labels = {name: path for name, path in list_files(labels_root) if _has_image_extension(name)}
        by_stem = {stem(name): path for name, path in labels.items()}
        inside = set(labels.values())
        pairs = {
            name: by_stem.get(stem(name)) for name, path in files.items() if is_image_name(name) and path not in inside
        }
    if not pairs:
        raise NoImagesFound(f"There is no image in {root}.", directory=str(root))
    used = {path for path in pairs.values() if path is not None}
    known = {files[name] for name in pairs} | set(labels.values())
    return Found(
        images=[LocalImage(name=name, path=files[name], label_path=label) for name, label in pairs.items()],
        lone_labels=[name for name, path in labels.items() if path not in used],
        ignored_count=sum(path not in known for path in files.values()),
    )


def name_files(paths: Sequence[Path], *, labels_root: Path | None = None) -> Found:
    """Take files that were named one by one, whatever their extension is.

    Their names are their file names; where two are alike, their paths below the folder they share.

    Raises:
        InvalidRequest: one is no file.
    """
    for path in paths:
        if not path.is_file():
            raise InvalidRequest(f"There is no file {path}.", path=str(path))
    names = [path.name for path in paths]
    if len(set(names)) < len(names):
        absolute = [path.absolute() for path in dict.fromkeys(paths)]
        shared = Path(os.path.commonpath([path.parent for path in absolute]))
        paths, names = absolute, [path.relative_to(shared).as_posix() for path in absolute]
    labels = dict(list_files(labels_root)) if labels_root else {}
    by_stem = {stem(name): path for name, path in labels.items() if _has_image_extension(name)}
    images = [
        LocalImage(name=_printable(name), path=path, label_path=by_stem.get(stem(name)))
        for name, path in zip(names, paths, strict=True)
    ]
    return Found(images=images, lone_labels=[], ignored_count=0)


def list_files(root: Path) -> Iterator[tuple[str, Path]]:
    """Yield every file below a folder with its name relative to it, in the order of names, hidden ones left out.

    Links to folders are followed, each folder once.

    Raises:
        InvalidRequest: it is no folder, or a part of it cannot be read.
    """
    if not root.is_dir():
        raise InvalidRequest(f"There is no directory {root}.", path=str(root))

    def refuse(error: OSError) -> None:
        raise InvalidRequest(f"{error.filename} cannot be read: {error.strerror}.") from error

    seen: set[tuple[int, int]] = set()
    found: list[tuple[str, Path]] = []
    for folder, folders, names in os.walk(root, followlinks=True, onerror=refuse):
        status = Path(folder).stat()
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            path = Path(folder, name)
            if not name.startswith(".") and path.is_file():
                found.append((_printable(path.relative_to(root).as_posix()), path))
    yield from sorted(found)


def _has_image_extension(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in IMAGE_EXTENSIONS


def _printable(name: str) -> str:
    """Return a name that JSON and logs can carry: bytes that are no UTF-8, and control characters, are replaced."""
    return _CONTROL.sub("\ufffd", os.fsencode(name).decode(errors="replace"))
