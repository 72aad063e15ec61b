"""A simulated world for the gate: versions of known true quality, and a new validation set every night.

Half of the parts are clean. A version scores 1.0 on a clean image unless it calls a defect there (then 0.0), 0.0 on a
defective image that it misses, and else an IoU around 0.75 that depends on the part, the image and the version. Images
of one part share their kind and their difficulty. The true mean IoU follows from three numbers in closed form.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from defectoscope.registry.gate import GateImage
from defectoscope.segmentation import PixelCounts

IMAGE_PX = 1_000_000
#: Clean parts are as many as all others together.
LABEL_PX = np.array([0, 0, 0, 1_000, 10_000, 50_000])
FOUND_IOU = 0.75
#: Chance that two versions meet the same luck with an image: they learned from much the same labels.
SHARED = 0.7


@dataclass(frozen=True)
class Version:
    """What a version is truly like; ``shift`` is added to the IoU of every defect that it finds."""

    shift: float = 0.0
    misses: float = 0.08
    false_calls: float = 0.04

    @property
    def quality(self):
        """The mean IoU over all images that there could ever be."""
        return 0.5 * (1 - self.misses) * (FOUND_IOU + self.shift) + 0.5 * (1 - self.false_calls)

    def better(self, by, *, way):
        """Return a version whose quality differs by exactly ``by``."""
        if way == "everywhere":
            return replace(self, shift=self.shift + 2 * by / (1 - self.misses))
        if way == "misses":
            return replace(self, misses=self.misses - 2 * by / (FOUND_IOU + self.shift))
        if way == "false calls":
            return replace(self, false_calls=self.false_calls - 2 * by)
        # A little better on most images, and blind to a few more.
        shifted = replace(self, shift=self.shift + 0.02)
        return shifted.better(by - (shifted.quality - self.quality), way="misses")


class Night:
    """The validation images of one night, and any version's scores on them."""

    def __init__(self, *, groups, rng):
        sizes = rng.integers(1, 5, size=groups)
        self.group_of = np.repeat(np.arange(groups), sizes)
        self.label_px = rng.choice(LABEL_PX, size=groups)[self.group_of]
        count = len(self.group_of)
        self.base = (
            FOUND_IOU + 0.10 * rng.uniform(-1, 1, size=groups)[self.group_of] + 0.06 * rng.uniform(-1, 1, size=count)
        )
        self.luck = rng.random(count)
        self.rng = rng

    def score(self, version):
        """Return the IoU of each image, (N,)."""
        count = len(self.luck)
        luck = np.where(self.rng.random(count) < SHARED, self.luck, self.rng.random(count))
        found = self.base + version.shift + 0.06 * self.rng.uniform(-1, 1, size=count)
        on_defects = np.where(luck < version.misses, 0.0, found)
        return np.where(self.label_px == 0, np.where(luck < version.false_calls, 0.0, 1.0), on_defects)

    @property
    def images(self):
        return [GateImage(image_id=row, group=str(group)) for row, group in enumerate(self.group_of.tolist())]

    def counts(self, iou):
        """Turn scores into pixel counts that have them, to the nearest pixel."""
        tp = np.rint(iou * self.label_px).astype(int).tolist()
        labels = self.label_px.tolist()
        fp = np.where((self.label_px == 0) & (iou == 0), 100, 0).tolist()
        return {
            row: PixelCounts(tp[row], fp[row], labels[row] - tp[row], IMAGE_PX - labels[row] - fp[row])
            for row in range(len(labels))
        }
