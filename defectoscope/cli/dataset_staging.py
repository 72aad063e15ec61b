"""Reads every label before anything is uploaded, and gives each picture a label file that says what it means."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from defectoscope.dataset.formats import Finding, LabelledPicture, LeftOut, Remark, Split
from defectoscope.errors.api import InvalidRequest
from defectoscope.errors.images import InvalidLabel
from defectoscope.segmentation import IGNORED, UInt8Array, decode_index_label, decode_label, encode_class_mask

LabelValues = Literal["auto", "index"]

_THREADS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class StagedPicture:
    """A picture that is ready to be uploaded.

    Attributes:
        name: what it is called in the dataset.
        image_path: the image's file.
        label_path: the label's file, as it was or in the canonical form.
        split: the side that was said, if one was.
        part: the part that it shows, if one was said.
        classes: which of 0, 1 and 255 its label holds.
    """

    name: str
    image_path: Path
    label_path: Path
    split: Split | None
    part: str | None
    classes: frozenset[int]


@dataclass(frozen=True, slots=True)
class Staged:
    """Everything that was found."""

    pictures: list[StagedPicture]
    left_out: list[LeftOut]
    remarks: list[Remark]


def stage(
    findings: Iterable[Finding],
    scratch: Path,
    *,
    label_values: LabelValues = "auto",
    on_label: Callable[[], None] = lambda: None,
) -> Staged:
    """Decode every label and store in the canonical form what is no file, or is a file of class numbers.

    Args:
        findings: from a reader.
        scratch: a directory for labels in the canonical form, which must live as long as the result.
        label_values: ``index`` takes the values of label files as class numbers; ``auto`` leaves files as they are.
        on_label: called after each.

    Raises:
        InvalidRequest: a label cannot be read, or one cannot be written.
    """
    left_out: list[LeftOut] = []
    remarks: list[Remark] = []
    waiting: list[tuple[LabelledPicture, Path]] = []
    ready: dict[str, StagedPicture] = {}
    for finding in findings:
        if isinstance(finding, LeftOut):
            left_out.append(finding)
        elif isinstance(finding, Remark):
            remarks.append(finding)
        elif isinstance(finding.label, Path):
            waiting.append((finding, finding.label))
        else:
            # Stored at once: the class masks of a whole dataset would not fit in memory.
            path = _write(finding.label, scratch / f"{len(ready)}.png")
            ready[finding.name] = _staged(finding, path, finding.label)
            on_label()

    def read(number: int) -> StagedPicture | LeftOut:
        picture, path = waiting[number]
        outcome = _read(picture, path, scratch / f"file-{number}.png", label_values=label_values)
        on_label()
        return outcome

    with ThreadPoolExecutor(_THREADS, thread_name_prefix="label") as pool:
        for outcome in pool.map(read, range(len(waiting))):
            if isinstance(outcome, LeftOut):
                left_out.append(outcome)
            else:
                ready[outcome.name] = outcome
    return Staged(sorted(ready.values(), key=lambda picture: picture.name), left_out, remarks)


def find_one_sided(pictures: Sequence[StagedPicture]) -> list[Remark]:
    """Remark where a dataset, or a side of it that was said, shows one class only."""
    sides = {"the training side": "train", "the validation side": "val"}
    remarks = []
    for value, class_name in ((1, "defect"), (0, "background")):
        said = {split for picture in pictures if value in picture.classes for split in (picture.split, None)}
        if None not in said:
            lacking = ["the dataset"]
        else:
            present = {picture.split for picture in pictures}
            lacking = [side for side, split in sides.items() if split in present - said]
        remarks += [Remark(side, "one_class_only", f"No label of {side} shows any {class_name}.") for side in lacking]
    return remarks


def _read(
    picture: LabelledPicture, path: Path, canonical: Path, *, label_values: LabelValues
) -> StagedPicture | LeftOut:
    try:
        data = path.read_bytes()
    except OSError as exc:
        raise InvalidRequest(f"{path} cannot be read: {exc.strerror}.") from exc
    try:
        if label_values == "index":
            class_mask = decode_index_label(data)
            return _staged(picture, _write(class_mask, canonical), class_mask)
        return _staged(picture, path, decode_label(data))
    except InvalidLabel as exc:
        return LeftOut(picture.name, exc.code, exc.message)


def _staged(picture: LabelledPicture, label_path: Path, class_mask: UInt8Array) -> StagedPicture:
    return StagedPicture(
        name=picture.name,
        image_path=picture.image_path,
        label_path=label_path,
        split=picture.split,
        part=picture.part,
        classes=frozenset(value for value in (0, 1, IGNORED) if np.any(class_mask == value)),
    )


def _write(class_mask: UInt8Array, path: Path) -> Path:
    try:
        path.write_bytes(encode_class_mask(class_mask))
    except OSError as exc:
        raise InvalidRequest(f"{path} cannot be written: {exc.strerror}.") from exc
    return path
