"""Scores a model on labelled images at their own resolution, through the pipeline that serves it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice

from defectoscope.segmentation import Engine, ModelContract, PixelCounts, UInt8Array, count_pixels, segment_batch
from trainer.data import LabelledFile, decode_ahead


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredImage:
    """Pixel counts of one image."""

    file: LabelledFile
    counts: PixelCounts


def evaluate(
    files: Sequence[LabelledFile],
    *,
    engine: Engine,
    contract: ModelContract,
    batch_size: int = 8,
    check: Callable[[], None] = lambda: None,
) -> list[ScoredImage]:
    """Segment every image and compare it with its label.

    Args:
        files: the images; they are decoded while the engine works, a few ahead of it.
        engine: runs the model.
        contract: of that model: size, threshold and minimum area.
        batch_size: images handed to the engine at once.
        check: asked before each batch whether to stop; it raises what it means.

    Returns:
        One score for each image, in order.

    Raises:
        InvalidDataset: a file cannot be used.
    """
    scored: list[ScoredImage] = []
    # Closed here and not when it is collected: its threads shall be gone when this returns or raises.
    with closing(decode_ahead(files, _Decoded)) as coming:
        check()
        while batch := list(islice(coming, batch_size)):
            found = segment_batch([image.pixels for image in batch], engine=engine, contract=contract)
            scored += [
                ScoredImage(file=image.file, counts=count_pixels(segmentation.mask, image.class_mask))
                for image, segmentation in zip(batch, found, strict=True)
            ]
            check()
    return scored


@dataclass(frozen=True, slots=True)
class _Decoded:
    file: LabelledFile
    pixels: UInt8Array
    class_mask: UInt8Array
