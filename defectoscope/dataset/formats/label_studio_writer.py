"""Writes a revision as tasks of Label Studio with brush annotations, and the labelling interface that shows them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from defectoscope.dataset.formats.brush import encode_brush
from defectoscope.dataset.formats.contract import DEFECT_NAME, IGNORED_NAME, RevisionPicture
from defectoscope.dataset.formats.folder_writer import write_file
from defectoscope.dataset.formats.new_directory import FileNames, new_directory
from defectoscope.layout import IMAGES_FOLDER
from defectoscope.segmentation import IGNORED

_INTERFACE = f"""\
<View>
  <Image name="image" value="$image" zoom="true"/>
  <BrushLabels name="tag" toName="image">
    <Label value="{DEFECT_NAME}" background="#d62728"/>
    <Label value="{IGNORED_NAME}" background="#7f7f7f"/>
  </BrushLabels>
</View>
"""


def write_label_studio(pictures: Iterable[RevisionPicture], out: Path) -> None:
    """Write ``tasks.json``, ``interface.xml`` and ``images/{train,val}/``.

    The tasks name their images as files of Label Studio's local storage, below this directory.

    Args:
        pictures: of one revision.
        out: the directory; it must not exist, or be empty.

    Raises:
        ExportDirectoryNotEmpty: there is something at ``out``.
        InvalidRequest: it cannot be written.
    """
    names = FileNames()
    tasks: list[dict[str, Any]] = []
    with new_directory(out) as root:
        for number, picture in enumerate(pictures, start=1):
            path = f"{IMAGES_FOLDER}/{picture.split}/{names.take(picture).as_posix()}"
            write_file(root / path, picture.image)
            data = {"image": f"/data/local-files/?d={quote(path)}", "split": picture.split}
            if picture.group:
                data["group"] = picture.group
            tasks.append({"id": number, "data": data, "annotations": [{"result": _describe(picture)}]})
        write_file(root / "tasks.json", json.dumps(tasks).encode())
        write_file(root / "interface.xml", _INTERFACE.encode())


def _describe(picture: RevisionPicture) -> list[dict[str, Any]]:
    """Return a brush stroke for each kind of region that the picture has."""
    width, height = picture.size_wh
    return [
        {
            "id": name,
            "type": "brushlabels",
            "from_name": "tag",
            "to_name": "image",
            "original_width": width,
            "original_height": height,
            "image_rotation": 0,
            "value": {
                "format": "rle",
                "rle": encode_brush(np.where(is_painted, np.uint8(255), np.uint8(0))),
                "brushlabels": [name],
            },
        }
        for name, value in ((DEFECT_NAME, 1), (IGNORED_NAME, IGNORED))
        if (is_painted := picture.class_mask == value).any()
    ]
