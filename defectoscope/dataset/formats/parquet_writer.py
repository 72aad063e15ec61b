"""Writes a revision as Parquet, one row for each image with the bytes of image and label, for other tools to read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from typing import Any

from defectoscope.dataset.formats.contract import RevisionPicture
from defectoscope.dataset.formats.new_directory import new_directory
from defectoscope.errors.installation import ComponentMissing
from defectoscope.segmentation import encode_class_mask

#: Rows are written together up to about so many bytes, which is what a reader has to hold at once.
_GROUP_BYTES = 64 * 2**20


def write_parquet(pictures: Iterable[RevisionPicture], out: Path) -> None:
    """Write ``train.parquet`` and ``val.parquet``.

    Columns: name, split, group, width, height, image (the file), image_sha256, label (PNG of 8-bit grey with 0
    background, 1 defect, 255 ignored), label_sha256, and source_label_sha256, of the label's file in the revision.

    Args:
        pictures: of one revision.
        out: the directory; it must not exist, or be empty.

    Raises:
        ComponentMissing: pyarrow is not installed.
        ExportDirectoryNotEmpty: there is something at ``out``.
        InvalidRequest: it cannot be written.
    """
    try:
        arrow: Any = import_module("pyarrow")
        parquet: Any = import_module("pyarrow.parquet")
    except ModuleNotFoundError as exc:
        raise ComponentMissing("Parquet needs pyarrow; install defectoscope[datasets].") from exc
    schema = _schema(arrow)
    with new_directory(out) as root, ExitStack() as stack:
        sides = {
            split: _Side(arrow, stack.enter_context(parquet.ParquetWriter(root / f"{split}.parquet", schema)))
            for split in ("train", "val")
        }
        for picture in pictures:
            sides[picture.split].add(picture)
        for side in sides.values():
            side.flush()


class _Side:
    """Rows of one side of the split, written in groups.

    Args:
        arrow: the module pyarrow.
        writer: where they go.
    """

    def __init__(self, arrow: Any, writer: Any) -> None:
        self._arrow = arrow
        self._writer = writer
        self._rows: list[dict[str, object]] = []
        self._size_bytes = 0

    def add(self, picture: RevisionPicture) -> None:
        """Add a row."""
        width, height = picture.size_wh
        label = encode_class_mask(picture.class_mask)
        self._rows.append(
            {
                "name": picture.name,
                "split": picture.split,
                "group": picture.group,
                "width": width,
                "height": height,
                "image": picture.image,
                "image_sha256": picture.image_sha256,
                "label": label,
                "label_sha256": hashlib.sha256(label).hexdigest(),
                "source_label_sha256": picture.label_sha256,
            }
        )
        self._size_bytes += len(picture.image) + len(label)
        if self._size_bytes >= _GROUP_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what is waiting."""
        if self._rows:
            self._writer.write_table(self._arrow.Table.from_pylist(self._rows, schema=_schema(self._arrow)))
        self._rows = []
        self._size_bytes = 0


def _schema(arrow: Any) -> Any:
    text, data, number = arrow.string(), arrow.binary(), arrow.int32()
    return arrow.schema(
        [
            arrow.field("name", text, nullable=False),
            arrow.field("split", text, nullable=False),
            arrow.field("group", text),
            arrow.field("width", number, nullable=False),
            arrow.field("height", number, nullable=False),
            arrow.field("image", data, nullable=False),
            arrow.field("image_sha256", text, nullable=False),
            arrow.field("label", data, nullable=False),
            arrow.field("label_sha256", text, nullable=False),
            arrow.field("source_label_sha256", text, nullable=False),
        ]
    )
