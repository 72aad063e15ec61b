"""Finds the local file that an annotation means by a path or an address which was true on another machine."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from urllib.parse import parse_qs, unquote, urlsplit

from defectoscope.dataset.formats.contract import Split
from defectoscope.errors.images import InvalidImage
from defectoscope.layout import IMAGES_FOLDER, LABELS_FOLDER, is_image_name
from defectoscope.segmentation import decode_image

#: Label Studio puts this before the name of every uploaded file.
_UPLOAD_PREFIX = re.compile(r"[0-9a-f]{8}-(?=.)")
_DRIVE = re.compile(r"[A-Za-z]:/")
_SPLIT_NAMES: Mapping[str, Split] = {"train": "train", "val": "val", "valid": "val", "validation": "val"}

_SAY_NOTHING = frozenset({IMAGES_FOLDER, LABELS_FOLDER, *_SPLIT_NAMES})


class PictureFinder:
    """The images below a directory, to be found by what annotations call them.

    Args:
        files: every file below the directory by its name relative to it; what is no image is not looked at.
    """

    def __init__(self, files: Mapping[str, Path]) -> None:
        self._paths = {name: path for name, path in files.items() if is_image_name(name)}
        self._by_file_name: dict[str, list[str]] = {}
        for name in self._paths:
            self._by_file_name.setdefault(PurePosixPath(name).name, []).append(name)

    @property
    def names(self) -> Iterable[str]:
        """Every image."""
        return self._paths.keys()

    def path(self, name: str) -> Path:
        """Return the file of an image that `find` named."""
        return self._paths[name]

    def find(self, reference: str, *, split: Split | None = None, folder: str = "") -> list[str]:
        """Return the images that a relative or absolute path may mean: one when it is clear, none, or several.

        A relative path means the image whose path ends with it, or equals its end. The folders of an absolute path
        are another machine's, so that its file name alone is enough where only one image has it.

        Args:
            reference: the path, with either kind of slash.
            split: of several, those on this side of the split are meant.
            folder: of several, those below this folder, relative to the directory, are meant.
        """
        path = reference.replace("\\", "/")
        is_foreign = path.startswith("/") or bool(_DRIVE.match(path))
        parts = tuple(part for part in path.split("/") if part not in {"", "."})
        if not parts:
            return []
        known = self._by_file_name.get(parts[-1], [])
        found = [name for name in known if _ends_alike(PurePosixPath(name).parts, parts)]
        if not found and is_foreign:
            found = known
        return self._narrow(found, parts, split=split, folder=folder)

    def find_address(self, address: str, *, split: Split | None = None) -> list[str]:
        """Return the images that the address of a Label Studio task may mean, as `find` does."""
        try:
            parts = urlsplit(address)
        except ValueError:
            return []
        # Files that Label Studio serves from a local directory: /data/local-files/?d=line3/a.jpg
        local = parse_qs(parts.query).get("d", [""])[0]
        # A Windows drive looks like the scheme of an address.
        path = local or (address if len(parts.scheme) == 1 else unquote(parts.path) or address)
        file_name = path.replace("\\", "/").rpartition("/")[2]
        shortened = _UPLOAD_PREFIX.sub("", file_name, count=1)
        found = self.find("/" + path, split=split)
        if not found and shortened != file_name:
            found = self.find("/" + shortened, split=split)
        return found

    def _narrow(self, found: list[str], parts: tuple[str, ...], *, split: Split | None, folder: str) -> list[str]:
        """Of several images keep those that more speaks for, as long as one is left."""
        whole = [name for name in found if PurePosixPath(name).parts[-len(parts) :] == parts]
        below = [name for name in found if folder and name.startswith(f"{folder}/")]
        on_side = [name for name in found if split and split_in_path(name) == split]
        equal = [name for name in found if bare_parts(name) == bare_parts("/".join(parts))]
        for narrowed in (on_side, below, whole, equal):
            kept = [name for name in found if name in narrowed]
            if len(found) > 1 and kept:
                found = kept
        return found


def read_size_wh(path: Path) -> tuple[int, int]:
    """Return width and height of an image, upright, where no annotation says them.

    Raises:
        InvalidImage: it is none.
    """
    try:
        data = path.read_bytes()
    except OSError as exc:
        raise InvalidImage(f"{path.name} cannot be read: {exc.strerror}.") from exc
    height, width = decode_image(data).shape_hw
    return width, height


def bare_parts(name: str) -> tuple[str, ...]:
    """Return the parts of a path without the folders that only say images, labels, train or val.

    >>> bare_parts("images/train/line3/a.jpg")
    ('line3', 'a.jpg')
    """
    parts = PurePosixPath(name).parts
    return (*(part for part in parts[:-1] if part not in _SAY_NOTHING), *parts[-1:])


def split_in_path(name: str) -> Split | None:
    """Return which side of the split a path says it is on.

    >>> split_in_path("images/val/a.jpg")
    'val'
    """
    for part in reversed(PurePosixPath(name).parts[:-1]):
        if part in _SPLIT_NAMES:
            return _SPLIT_NAMES[part]
    return None


def split_in_file_name(name: str) -> Split | None:
    """Return which side of the split an annotation file is for, by its name, else by the folders it lies in.

    >>> split_in_file_name("annotations/instances_train2017.json")
    'train'
    """
    words = [word for word in re.split(r"[^a-z]+", PurePosixPath(name).stem.lower()) if word]
    sides = {_SPLIT_NAMES[word] for word in words if word in _SPLIT_NAMES}
    return sides.pop() if len(sides) == 1 else split_in_path(name)


def _ends_alike(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    length = min(len(one), len(other))
    return one[-length:] == other[-length:]
