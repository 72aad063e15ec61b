"""How folders of images and labels are laid out: which files are taken, and which label belongs to which image.

One rule for local directories, zip archives and object prefixes: a label has its image's path and stem, with the
folder ``images`` replaced by ``labels``; or, when a labels folder is named, its image's path and stem below that.

::

    images/train/a.jpg      labels/train/a.png
    part7/images/b.png      part7/labels/b.png
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath

#: Extensions taken as images when a folder is submitted. GIF is among them so that it gets its named error.
IMAGE_EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp", ".gif"})

IMAGES_FOLDER = "images"
LABELS_FOLDER = "labels"


def is_image_name(name: str) -> bool:
    """Return whether a file of this path is taken as an image: by extension, hidden files and labels excluded."""
    return is_picture_name(name) and not _is_in_labels(name)


def is_label_name(name: str) -> bool:
    """Return whether a file of this path is taken as a label: a picture in a labels folder.

    Of the folders on the way, the last one that is called images or labels decides.
    """
    return is_picture_name(name) and _is_in_labels(name)


def is_picture_name(name: str) -> bool:
    """Return whether a file of this path is a picture, image or label: by extension, hidden files excluded."""
    path = PurePosixPath(name)
    return path.suffix.lower() in IMAGE_EXTENSIONS and not any(part.startswith(".") for part in path.parts)


def _is_in_labels(name: str) -> bool:
    for part in reversed(PurePosixPath(name).parts[:-1]):
        if part in {IMAGES_FOLDER, LABELS_FOLDER}:
            return part == LABELS_FOLDER
    return False


def label_stem(name: str) -> str | None:
    """Return the path without extension where the label of an image lies, or None outside an images folder.

    >>> label_stem("images/train/a.jpg")
    'labels/train/a'
    """
    path = PurePosixPath(name).with_suffix("")
    parts = list(path.parts)
    for index in range(len(parts) - 2, -1, -1):
        if parts[index] == IMAGES_FOLDER:
            parts[index] = LABELS_FOLDER
            return "/".join(parts)
    return None


def stem(name: str) -> str:
    """Return a path without its extension.

    >>> stem("train/a.jpg")
    'train/a'
    """
    return str(PurePosixPath(name).with_suffix(""))


def pair_labels(names: Iterable[str]) -> dict[str, str | None]:
    """Return every image among the names with its label, or None where it has none; in the order given.

    Of several labels of one stem the first by name is taken.
    """
    names = list(names)
    labels = {stem(name): name for name in sorted(names, reverse=True) if is_label_name(name)}
    return {name: labels.get(label_stem(name) or "") for name in names if is_image_name(name)}


class OutputNames:
    """Gives every image the name of its mask or overlay, without extension: the image's own path and stem.

    Where two images differ in their extension alone, the second keeps it in the name, so that neither is overwritten.
    """

    def __init__(self) -> None:
        """Start with no name taken."""
        self._taken: set[str] = set()

    def take(self, name: str) -> str:
        """Return the output name of an image.

        >>> names = OutputNames()
        >>> names.take("line1/a.jpg"), names.take("line1/a.png")
        ('line1/a', 'line1/a.png')
        """
        output = stem(name)
        if output in self._taken:
            output = name
        self._taken.add(output)
        return output
