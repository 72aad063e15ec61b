"""Writes sample series to disk, as a dataset to train on or as a flat batch to inspect.

It never writes into a directory that already holds samples: a mixture of two series could not be told apart.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from defectoscope.errors.api import InvalidRequest
from defectoscope.errors.datasets import SampleDirectoryNotEmpty
from defectoscope.samples.picture import Sample, chosen_in_block, draw_sample

_VALIDATION_BLOCK = 5
_JPEG_QUALITY = 92


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleSet:
    """What was written.

    Attributes:
        directory: where it lies.
        count: how many samples in all.
        train_count: samples in the training part; 0 in a flat set.
        val_count: samples in the validation part; 0 in a flat set.
        defect_free_count: samples without any defect.
    """

    directory: Path
    count: int
    train_count: int
    val_count: int
    defect_free_count: int


def generate_samples(
    directory: Path,
    *,
    count: int,
    seed: int,
    layout: Literal["split", "flat"] = "split",
    on_progress: Callable[[int, int], None] | None = None,
) -> SampleSet:
    """Draw a series and write it below a directory.

    Each sample becomes ``images/STEM.jpg`` (RGB) and ``labels/STEM.png`` (8-bit grey, 0 background and 255 defect, of
    the same size). In the split layout both lie one level deeper, in ``train`` or ``val``: one sample of each five is
    for validation, chosen by the seed and its position alone.

    Args:
        directory: made if need be; its ``images`` and ``labels`` must be missing or empty.
        count: how many samples, 1 or more.
        seed: 0 or more; the same seed gives the same bytes.
        layout: ``split`` for a dataset to train on, ``flat`` for a batch to inspect.
        on_progress: called after each sample with how many are done and how many there are.

    Returns:
        The counts of what was written.

    Raises:
        InvalidRequest: the count is below 1 or the seed below 0.
        SampleDirectoryNotEmpty: there are images or labels already.
        OSError: the directory cannot be written.
    """
    if count < 1:
        raise InvalidRequest("The number of samples must be 1 or more.", count=count)
    if seed < 0:
        raise InvalidRequest("The seed must be 0 or more.", seed=seed)
    for part in ("images", "labels"):
        if (directory / part).exists() and any((directory / part).rglob("*.*")):
            raise SampleDirectoryNotEmpty(directory=str(directory))

    tally = {"train": 0, "val": 0, "": 0}
    defect_free_count = 0
    for number in range(count):
        sample = draw_sample(seed=seed, number=number)
        split = split_of(seed=seed, number=number) if layout == "split" else ""
        _write(sample, directory=directory, split=split)
        tally[split] += 1
        defect_free_count += not sample.defects
        if on_progress is not None:
            on_progress(number + 1, count)
    return SampleSet(
        directory=directory,
        count=count,
        train_count=tally["train"],
        val_count=tally["val"],
        defect_free_count=defect_free_count,
    )


def split_of(*, seed: int, number: int) -> Literal["train", "val"]:
    """Name the part of the dataset a sample belongs to."""
    return "val" if chosen_in_block(seed=seed, number=number, block=_VALIDATION_BLOCK, purpose=2) else "train"


def encode_image(sample: Sample) -> bytes:
    """Encode the picture as JPEG; every setting is fixed, so that the bytes are."""
    buffer = io.BytesIO()
    Image.fromarray(sample.pixels).save(
        buffer, "JPEG", quality=_JPEG_QUALITY, subsampling="4:2:0", optimize=False, progressive=False
    )
    return buffer.getvalue()


def encode_label(sample: Sample) -> bytes:
    """Encode the mask as 8-bit grey PNG, 0 for background and 255 for defect."""
    buffer = io.BytesIO()
    Image.fromarray(sample.class_mask * np.uint8(255)).save(buffer, "PNG", compress_level=6)
    return buffer.getvalue()


def _write(sample: Sample, *, directory: Path, split: str) -> None:
    """Write the picture and its label below the directory."""
    image_path = directory / "images" / split / f"{sample.stem}.jpg"
    label_path = directory / "labels" / split / f"{sample.stem}.png"
    image_path.parent.mkdir(parents=True, exist_ok=True)
    label_path.parent.mkdir(parents=True, exist_ok=True)
    image_path.write_bytes(encode_image(sample))
    label_path.write_bytes(encode_label(sample))
