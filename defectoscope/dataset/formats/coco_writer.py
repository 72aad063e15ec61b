"""Writes a revision as COCO: one file of annotations for each side, regions as run lengths, so that holes survive."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from defectoscope.dataset.formats.contract import DEFECT_NAME, RevisionPicture
from defectoscope.dataset.formats.folder_writer import write_file
from defectoscope.dataset.formats.new_directory import FileNames, new_directory
from defectoscope.dataset.formats.run_lengths import encode_runs, encode_text
from defectoscope.layout import IMAGES_FOLDER
from defectoscope.segmentation import IGNORED, UInt8Array

_CATEGORY = {"id": 1, "name": DEFECT_NAME, "supercategory": DEFECT_NAME}


def write_coco(pictures: Iterable[RevisionPicture], out: Path) -> None:
    """Write ``annotations/instances_{train,val}.json`` and ``images/{train,val}/``.

    Each connected region is an annotation; ignored regions are crowds. ``group`` of an image is our own addition.

    Args:
        pictures: of one revision.
        out: the directory; it must not exist, or be empty.

    Raises:
        ExportDirectoryNotEmpty: there is something at ``out``.
        InvalidRequest: it cannot be written.
    """
    names = FileNames()
    documents: dict[str, dict[str, Any]] = {
        split: {"images": [], "annotations": [], "categories": [_CATEGORY]} for split in ("train", "val")
    }
    with new_directory(out) as root:
        for number, picture in enumerate(pictures, start=1):
            name = names.take(picture)
            write_file(root / IMAGES_FOLDER / picture.split / name, picture.image)
            document = documents[picture.split]
            width, height = picture.size_wh
            image = {"id": number, "file_name": name.as_posix(), "width": width, "height": height}
            document["images"].append(image | ({"group": picture.group} if picture.group else {}))
            for region in _describe(picture.class_mask):
                about = {"id": len(document["annotations"]) + 1, "image_id": number, "category_id": _CATEGORY["id"]}
                document["annotations"].append(about | region)
        for split, document in documents.items():
            write_file(root / "annotations" / f"instances_{split}.json", json.dumps(document).encode())


def _describe(class_mask: UInt8Array) -> Iterator[dict[str, Any]]:
    """Yield what COCO says of each connected region."""
    shape_hw = (class_mask.shape[0], class_mask.shape[1])
    for value, is_crowd in ((1, 0), (IGNORED, 1)):
        kind = np.asarray(class_mask == value).astype(np.uint8)
        count, raw_regions, raw_stats, _ = cv2.connectedComponentsWithStats(kind, connectivity=8)
        regions = np.asarray(raw_regions)
        for number in range(1, count):
            left, top, width, height, area = np.asarray(raw_stats[number]).tolist()
            window = np.asarray(regions[top : top + height, left : left + width] == number)
            counts = encode_runs(window, shape_hw=shape_hw, left=left, top=top)
            yield {
                "segmentation": {"size": list(shape_hw), "counts": encode_text(counts)},
                "area": area,
                "bbox": [left, top, width, height],
                "iscrowd": is_crowd,
            }
