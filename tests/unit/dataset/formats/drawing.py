"""Small revisions and directories for the tests of formats."""

from __future__ import annotations

import hashlib

import numpy as np

from defectoscope.dataset.formats import LabelledPicture, PictureFinder, RevisionPicture
from tests.images import draw_part, encode


def make_picture(class_mask, *, name="images/a.png", split="train", group=None, seed=0, image=None):
    """A picture of a revision: an image of the class mask's size, drawn from a seed."""
    height, width = class_mask.shape
    if image is None:
        image = encode(draw_part(height=height, width=width, seed=seed)[0], "PNG")
    return RevisionPicture(
        name=name,
        split=split,
        group=group,
        image=image,
        class_mask=class_mask,
        image_sha256=hashlib.sha256(image).hexdigest(),
        label_sha256="0" * 64,
    )


def draw_class_mask(*, height=20, width=30):
    """A ring with a hole, a dot of one pixel in a corner, and an ignored stripe that the ring touches."""
    class_mask = np.zeros((height, width), dtype=np.uint8)
    y, x = np.mgrid[0:height, 0:width]
    class_mask[:, width // 2 : width // 2 + 3] = 255
    radius = np.hypot(y - height / 2, x - width / 3)
    class_mask[(radius < 7) & (radius > 3)] = 1
    class_mask[-1, -1] = 1
    return class_mask


def list_below(root):
    """Every file below a directory by its name relative to it."""
    return {path.relative_to(root).as_posix(): path for path in sorted(root.rglob("*")) if path.is_file()}


def find_pictures(root):
    return PictureFinder(list_below(root))


def taken(findings):
    """The pictures among findings, by name."""
    return {finding.name: finding for finding in findings if isinstance(finding, LabelledPicture)}


def codes(findings):
    """Code by name of everything that is no picture."""
    return {finding.name: finding.code for finding in findings if not isinstance(finding, LabelledPicture)}
