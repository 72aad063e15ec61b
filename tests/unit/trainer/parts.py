"""Drawn parts on disk, the tiny recipe they are trained with, and an observer that remembers."""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.images import draw_part, encode

TINY = {
    "encoder": "tu-resnet10t",
    "encoder_weights": None,
    "loss": "cross_entropy+dice",
    "input_size_wh": (64, 64),
    "epochs": 8,
    "learning_rate": 3e-3,
    "batch_size": 4,
    "min_area_px": 0,
}


def write_parts(directory, *, split, sizes_wh, clean=(), first_seed=0):
    """Write drawn parts and their labels into one side of a split, or flat when the split is empty."""
    for number, (width, height) in enumerate(sizes_wh):
        pixels, class_mask = draw_part(
            height=height, width=width, seed=first_seed + number, with_defect=number not in clean
        )
        stem = f"part-{first_seed + number}"
        for kind, array, suffix in (("images", pixels, "png"), ("labels", class_mask * 255, "png")):
            path = directory / kind / split / f"{stem}.{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode(array, "PNG"))


@dataclass
class Follower:
    """An observer that remembers."""

    stages: list[str] = field(default_factory=list)
    epochs: dict[int, dict[str, float]] = field(default_factory=dict)
    figures: dict[str, object] = field(default_factory=dict)

    def stage(self, name):
        self.stages.append(name)

    def epoch(self, epoch, figures):
        self.epochs[epoch] = figures

    def found(self, figures):
        self.figures |= figures

    def check(self):
        """Go on."""
