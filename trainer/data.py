"""Labelled images on local disk or behind a bounded cache, decoded as serving decodes, several ahead of their use.

It refuses to decide what is in a dataset: a revision is taken as it is, a directory as it is laid out.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import structlog

from defectoscope.dataset import LabelledImage
from defectoscope.errors.datasets import DatasetNotFound, InvalidDataset
from defectoscope.errors.images import InvalidImage, InvalidLabel, LabelSizeMismatch
from defectoscope.layout import IMAGES_FOLDER, LABELS_FOLDER, pair_labels
from defectoscope.segmentation import UInt8Array, decode_image, decode_label
from trainer.cache import FileCache

log = structlog.get_logger(__name__)

T = TypeVar("T")

#: Files are read by more threads than cores: they wait for the network or the disk. Decoding keeps a core busy.
_READING_THREADS = 8
_DECODING_THREADS = 4
_SPLITS = ("train", "val")
#: Of the images without a split of their own, one in this many goes to validation.
_VALIDATION_SHARE = 5


class Source(Protocol):
    """Where the bytes of one file come from."""

    def read(self) -> bytes:
        """Return the whole content."""
        ...


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file on this machine."""

    path: Path

    def read(self) -> bytes:
        """Return the whole content."""
        return self.path.read_bytes()


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedObject:
    """An object of the storage, read through a cache."""

    cache: FileCache
    key: str
    sha256: str

    def read(self) -> bytes:
        """Return the whole content, verified by its hash; raises as `FileCache.read` does."""
        return self.cache.read(self.key, self.sha256)


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledFile:
    """An image and its label.

    Attributes:
        name: what messages call it.
        image: content of the image.
        label: content of its label.
        image_id: its row, where it came from a revision.
        group: images of one group are not independent, such as several photographs of one part; its name by default.
    """

    name: str
    image: Source
    label: Source
    image_id: int | None = None
    group: str = ""

    def __post_init__(self) -> None:
        """Make an image without a group a group of its own."""
        if not self.group:
            object.__setattr__(self, "group", self.name)

    def read(self) -> tuple[bytes, bytes]:
        """Return the content of the image and of its label."""
        return self.image.read(), self.label.read()

    def decode(self, content: tuple[bytes, bytes] | None = None) -> tuple[UInt8Array, UInt8Array]:
        """Decode both files.

        Args:
            content: what `read` returned; it is read now where it was not before.

        Returns:
            (H, W, 3) uint8 RGB, and the (H, W) uint8 class mask: 0 background, 1 defect, 255 ignored.

        Raises:
            InvalidDataset: one cannot be decoded, or they differ in size; the sentence names the image.
        """
        image, label = content or self.read()
        try:
            pixels = decode_image(image).pixels
            class_mask = decode_label(label)
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


def open_revision(images: Sequence[LabelledImage], *, cache: FileCache) -> LabelledFiles:
    """Return the files of a revision; each is fetched when it is read, and kept as the cache sees fit.

    Args:
        images: from `defectoscope.dataset.labelled_images`.
        cache: reads from the storage that the revision lies in.
    """
    sides: dict[str, list[LabelledFile]] = {split: [] for split in _SPLITS}
    for image in images:
        sides[image.split.value].append(
            LabelledFile(
                name=image.name,
                image=CachedObject(cache=cache, key=image.image_key, sha256=image.image_sha256),
                label=CachedObject(cache=cache, key=image.label_key, sha256=image.label_sha256),
                image_id=image.image_id,
                group=image.group,
            )
        )
    return LabelledFiles(train=tuple(sides["train"]), val=tuple(sides["val"]))


def decode_ahead(
    files: Sequence[LabelledFile], then: Callable[[LabelledFile, UInt8Array, UInt8Array], T]
) -> Generator[T, None, None]:
    """Read and decode files in the background, a few ahead of their use, so that waiting and computing overlap.

    Args:
        files: any number; a dozen at most are in memory at a time, and only four of them decoded.
        then: called in the background with the file, its (H, W, 3) pixels and its (H, W) class mask.

    Yields:
        What `then` returned, in the order of the files.

    Raises:
        InvalidDataset: a file cannot be decoded; raised when its turn comes.
    """

    def finish(file: LabelledFile, content: Future[tuple[bytes, bytes]]) -> T:
        return then(file, *file.decode(content.result()))

    coming = iter(files)
    reading: deque[tuple[LabelledFile, Future[tuple[bytes, bytes]]]] = deque()
    decoding: deque[Future[T]] = deque()
    with (
        ThreadPoolExecutor(_READING_THREADS, thread_name_prefix="read") as readers,
        ThreadPoolExecutor(_DECODING_THREADS, thread_name_prefix="decode") as decoders,
    ):
        try:
            while True:
                while len(reading) < _READING_THREADS and (file := next(coming, None)) is not None:
                    reading.append((file, readers.submit(file.read)))
                while reading and len(decoding) < _DECODING_THREADS:
                    decoding.append(decoders.submit(finish, *reading.popleft()))
                if not decoding:
                    return
                yield decoding.popleft().result()
        finally:
            # Whoever stops early shall not wait for what nobody wants any more.
            readers.shutdown(wait=False, cancel_futures=True)
            decoders.shutdown(wait=False, cancel_futures=True)


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
        LabelledFile(name=image, image=LocalFile(directory / image), label=LocalFile(directory / label))
        for image, label in pairs.items()
        if label is not None
    ]
    sides = [tuple(file for file in files if file.name.split("/")[1] == split) for split in _SPLITS]
    if all(sides):
        return LabelledFiles(train=sides[0], val=sides[1])
    files.sort(key=lambda file: hashlib.sha256(file.image.read()).digest())
    val_count = max(1, round(len(files) / _VALIDATION_SHARE)) if len(files) > 1 else 0
    return LabelledFiles(train=tuple(files[val_count:]), val=tuple(files[:val_count]))
