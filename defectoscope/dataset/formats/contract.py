"""What readers of label formats give and what writers take, so that no format knows another or a server."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from defectoscope.segmentation import UInt8Array

Split = Literal["train", "val"]

#: Names of regions, in lower case, whose pixels count neither as defect nor as background.
IGNORED_NAMES = frozenset({"ignore", "ignored"})
#: What our own exports call the two kinds of regions.
DEFECT_NAME = "defect"
IGNORED_NAME = "ignored"


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledPicture:
    """An image with its label, as a reader found them.

    Attributes:
        name: what it is called in the dataset.
        image_path: the image's file.
        label: (H, W) uint8 with 0 background, 1 defect, 255 ignored; or the path of a mask file as it is.
        split: the side that the format says, if it does.
        part: the part or place that it shows, where that is said; pictures of one part belong together.
    """

    name: str
    image_path: Path
    label: Path | UInt8Array
    split: Split | None = None
    part: str | None = None


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Something that is not in the dataset, and why."""

    name: str
    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class Remark:
    """Something worth knowing about a picture that was taken."""

    name: str
    code: str
    reason: str


#: What a reader gives, one after another.
Finding = LabelledPicture | LeftOut | Remark


@dataclass(frozen=True, slots=True, kw_only=True)
class RevisionPicture:
    """A labelled image of a dataset revision, as writers take it.

    Attributes:
        name: what it is called in the dataset.
        split: its side.
        group: the part or the near-duplicates that it belongs to, if any.
        image: the file, byte for byte.
        class_mask: (H, W) uint8 with 0 background, 1 defect, 255 ignored, of the upright image's size.
        image_sha256: content hash of the image's file.
        label_sha256: content hash of the label's file as it was stored.
    """

    name: str
    split: Split
    group: str | None
    image: bytes
    class_mask: UInt8Array
    image_sha256: str
    label_sha256: str

    @property
    def size_wh(self) -> tuple[int, int]:
        """Width and height in pixels, upright."""
        return self.class_mask.shape[1], self.class_mask.shape[0]
