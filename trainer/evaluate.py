"""Scores a model on labelled images at their own resolution, through the pipeline that serves it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from defectoscope.segmentation import Engine, ModelContract, PixelCounts, count_pixels, segment_batch
from trainer.data import LabelledFile


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
        files: the images; they are decoded a batch at a time.
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
    for batch in _batches(files, batch_size):
        check()
        decoded = [file.decode() for file in batch]
        found = segment_batch([pixels for pixels, _ in decoded], engine=engine, contract=contract)
        scored += [
            ScoredImage(file=file, counts=count_pixels(segmentation.mask, class_mask))
            for file, segmentation, (_, class_mask) in zip(batch, found, decoded, strict=True)
        ]
    return scored


def _batches(files: Sequence[LabelledFile], size: int) -> Iterator[list[LabelledFile]]:
    remaining = iter(files)
    while batch := list(islice(remaining, size)):
        yield batch
