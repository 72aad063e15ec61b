"""Labelled images on local disk: fetched from a dataset revision or found in a directory, decoded as serving decodes.

It refuses to decide what is in a dataset: a revision is taken as it is, a directory as it is laid out.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import structlog

from defectoscope.dataset import LabelledImage
from defectoscope.errors import (
    DatasetNotFound,
    InvalidDataset,
    InvalidImage,
    InvalidLabel,
    LabelSizeMismatch,
    StorageFault,
)
from defectoscope.layout import IMAGES_FOLDER, LABELS_FOLDER, pair_labels
from defectoscope.segmentation import UInt8Array, decode_image, decode_label
from defectoscope.storage import Storage

log = structlog.get_logger(__name__)

_FETCH_THREADS = 8
_SPLITS = ("train", "val")
#: Of the images without a split of their own, one in this many goes to validation.
_VALIDATION_SHARE = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledFile:
    """An image and its label, as files.

    Attributes:
        name: what messages call it.
        image_path: the image.
        label_path: its label.
        image_id: its row, where it came from a revision.
    """

    name: str
    image_path: Path
    label_path: Path
    image_id: int | None = None

    def decode(self) -> tuple[UInt8Array, UInt8Array]:
        """Decode both files.

        Returns:
            (H, W, 3) uint8 RGB, and the (H, W) uint8 class mask: 0 background, 1 defect, 255 ignored.

        Raises:
            InvalidDataset: one cannot be decoded, or they differ in size; the sentence names the image.
        """
        try:
            pixels = decode_image(self.image_path.read_bytes()).pixels
            class_mask = decode_label(self.label_path.read_bytes())
            if class_mask.shape != pixels.shape[:2]:
                raise LabelSizeMismatch
        except (InvalidImage, InvalidLabel) as exc:
            raise InvalidDataset(f"{self.name} cannot be used: {exc.message}", name=self.name, cause=exc.code) from exc
        return pixels, class_mask


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledFiles:
    """Both sides of the split."""

    train: tuple[LabelledFile, ...]
    val: tuple[LabelledFile, ...]


def fetch_revision(images: Sequence[LabelledImage], *, storage: Storage, cache_dir: Path) -> LabelledFiles:
    """Bring every file of a revision to local disk, under its content hash; what is there already is not fetched.

    Args:
        images: from `defectoscope.dataset.labelled_images`.
        storage: where the objects are.
        cache_dir: where they go; it may be shared between runs.

    Raises:
        StorageFault: an object's bytes are not what its hash says.
    """
    cache_dir.mkdir(parents=True, exist_ok=True)
    # By hash, so that files of the same content, such as empty labels, are fetched by one thread only.
    wanted = {image.image_sha256: image.image_key for image in images}
    wanted |= {image.label_sha256: image.label_key for image in images}
    with ThreadPoolExecutor(_FETCH_THREADS, thread_name_prefix="fetch") as pool:
        for fetched in [
            pool.submit(_fetch, storage, key=key, sha256=sha256, cache_dir=cache_dir) for sha256, key in wanted.items()
        ]:
            fetched.result()
    files = [
        LabelledFile(
            name=image.name,
            image_path=cache_dir / image.image_sha256,
            label_path=cache_dir / image.label_sha256,
            image_id=image.image_id,
        )
        for image in images
    ]
    split_of = [image.split.value for image in images]
    train, val = (
        tuple(file for file, split in zip(files, split_of, strict=True) if split == wanted) for wanted in _SPLITS
    )
    return LabelledFiles(train=train, val=val)


def read_directory(directory: Path) -> LabelledFiles:
    """Find labelled images in ``images/{train,val}`` + ``labels/{train,val}``, or in flat ``images/`` + ``labels/``.

    Labels belong to images as `defectoscope.layout` says; images without one are left out. A directory without both
    sides is split 80/20 in the order of the images' content hashes, so that neither names nor the order of the file
    system decide.

    Raises:
        DatasetNotFound: there is no ``images`` and ``labels`` there.
    """
    roots = [directory / folder for folder in (IMAGES_FOLDER, LABELS_FOLDER)]
    if not all(root.is_dir() for root in roots):
        raise DatasetNotFound(f"{directory} holds no images/ and labels/ directories.", directory=str(directory))
    names = sorted(
        path.relative_to(directory).as_posix() for root in roots for path in root.rglob("*") if path.is_file()
    )
    pairs = pair_labels(names)
    unlabelled = [image for image, label in pairs.items() if label is None]
    if unlabelled:
        log.warning("dataset.unlabelled", count=len(unlabelled), first=unlabelled[0], consequence="left out")
    files = [
        LabelledFile(name=image, image_path=directory / image, label_path=directory / label)
        for image, label in pairs.items()
        if label is not None
    ]
    sides = [tuple(file for file in files if file.name.split("/")[1] == split) for split in _SPLITS]
    if all(sides):
        return LabelledFiles(train=sides[0], val=sides[1])
    files.sort(key=lambda file: hashlib.sha256(file.image_path.read_bytes()).digest())
    val_count = max(1, round(len(files) / _VALIDATION_SHARE)) if len(files) > 1 else 0
    return LabelledFiles(train=tuple(files[val_count:]), val=tuple(files[:val_count]))


def _fetch(storage: Storage, *, key: str, sha256: str, cache_dir: Path) -> None:
    path = cache_dir / sha256
    if path.is_file():
        return
    data = storage.get(key)
    if hashlib.sha256(data).hexdigest() != sha256:
        raise StorageFault(f"The object {key} is not what was stored there: its hash differs.", key=key)
    # Written beside and renamed, so that a killed trainer leaves no half file under a hash.
    partial = path.with_name(f"{sha256}.{os.getpid()}.partial")
    partial.write_bytes(data)
    partial.replace(path)
