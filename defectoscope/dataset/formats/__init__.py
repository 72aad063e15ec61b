"""Formats that labels come in and go out in. Readers and writers know files and class masks, and no server."""

from __future__ import annotations

from defectoscope.dataset.formats.coco import read_coco
from defectoscope.dataset.formats.coco_writer import write_coco
from defectoscope.dataset.formats.contract import (
    Finding,
    LabelledPicture,
    LeftOut,
    Remark,
    RevisionPicture,
    Split,
)
from defectoscope.dataset.formats.folder_writer import MANIFEST_FILE, write_folder
from defectoscope.dataset.formats.label_studio import read_label_studio
from defectoscope.dataset.formats.label_studio_writer import write_label_studio
from defectoscope.dataset.formats.parquet_writer import write_parquet
from defectoscope.dataset.formats.pictures import PictureFinder, bare_parts

__all__ = [
    "MANIFEST_FILE",
    "Finding",
    "LabelledPicture",
    "LeftOut",
    "PictureFinder",
    "Remark",
    "RevisionPicture",
    "Split",
    "bare_parts",
    "read_coco",
    "read_label_studio",
    "write_coco",
    "write_folder",
    "write_label_studio",
    "write_parquet",
]
