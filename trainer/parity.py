"""Proves that an exported file gives the masks of the network it came from, on real validation images.

Both go through the serving pipeline, one image at a time and all in batches, non-square images included. A file that
differs is refused with its figures; nothing here may be switched off.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from defectoscope.errors import ExportParityFailed
from defectoscope.segmentation import Engine, ModelContract, UInt8Array, segment_batch
from trainer.data import LabelledFile

#: Least intersection over union of the masks of both, pooled over the images, for fp32.
MIN_MASK_IOU = 0.999
#: Images compared at most, evenly spread over the validation side.
MAX_IMAGES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """How far an exported model is from its network.

    Attributes:
        images: images compared, each alone and in a batch.
        batch_size: size of the full batch.
        max_level_difference: largest difference of a pixel's defect probability, in steps of 1/255.
        mask_iou: intersection over union of both defect masks, pooled; 1.0 where both are empty.
        flipped_verdicts: images that one calls clean and the other defective.
    """

    images: int
    batch_size: int
    max_level_difference: int
    mask_iou: float
    flipped_verdicts: int

    def to_json(self) -> dict[str, Any]:
        """Return the figures as JSON-ready values."""
        return asdict(self)


def compare(
    files: Sequence[LabelledFile],
    *,
    reference: Engine,
    exported: Engine,
    contract: ModelContract,
    batch_size: int,
    check: Callable[[], None] = lambda: None,
) -> Parity:
    """Run both engines over the images and measure where they differ.

    Args:
        files: validation images; at most `MAX_IMAGES` of them are used.
        reference: the network itself.
        exported: the file.
        contract: of both.
        batch_size: the full batch; every image is also run alone.
        check: asked before each comparison whether to stop; it raises what it means.
    """
    images = _choose(files)
    # The network is asked once, in batches: it is the truth here, and by far the slower of the two.
    batches = [images[start : start + batch_size] for start in range(0, len(images), batch_size)]
    largest = flipped = overlap = union = 0
    for batch in batches:
        check()
        expected = _Recorder(reference)
        wanted = segment_batch(batch, engine=expected, contract=contract)
        for groups in ([batch], [[image] for image in batch]):
            actual = _Recorder(exported)
            found = [one for group in groups for one in segment_batch(group, engine=actual, contract=contract)]
            largest = max(largest, int(np.abs(expected.levels() - actual.levels()).max()))
            for ours, theirs in zip(wanted, found, strict=True):
                claimed, given = ours.mask != 0, theirs.mask != 0
                overlap += int(np.count_nonzero(claimed & given))
                union += int(np.count_nonzero(claimed | given))
                flipped += bool(ours.defects) != bool(theirs.defects)
    return Parity(
        images=len(images),
        batch_size=min(batch_size, len(images)),
        max_level_difference=largest,
        mask_iou=overlap / union if union else 1.0,
        flipped_verdicts=flipped,
    )


def demand(parity: Parity) -> None:
    """Let figures within the tolerance of fp32 pass.

    Raises:
        ExportParityFailed: they are not; its details are the figures.
    """
    if parity.mask_iou < MIN_MASK_IOU or parity.flipped_verdicts:
        raise ExportParityFailed(
            f"The exported model differs from the trained one: mask IoU {parity.mask_iou:.4f} where {MIN_MASK_IOU} is "
            f"needed, {parity.flipped_verdicts} flipped verdicts, probabilities up to "
            f"{parity.max_level_difference}/255 apart, on {parity.images} images; it was not registered.",
            **parity.to_json(),
        )


class _Recorder:
    """An engine that remembers what it gave."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._outputs: list[UInt8Array] = []

    def __call__(self, images: UInt8Array) -> UInt8Array:
        output = self._engine(images)
        self._outputs.append(output)
        return output

    def levels(self) -> np.ndarray[Any, np.dtype[np.int16]]:
        """Return every level so far as (N, h, w) integers that can be subtracted."""
        return np.concatenate(self._outputs).astype(np.int16)


def _choose(files: Sequence[LabelledFile]) -> list[UInt8Array]:
    """Decode images evenly spread over the files, and see to it that one of them is not square."""
    step = max(1, -(-len(files) // MAX_IMAGES))
    images = [file.decode()[0] for file in files[::step]]
    if all(image.shape[0] == image.shape[1] for image in images):
        first = images[0]
        images.append(np.ascontiguousarray(first[: max(1, first.shape[0] // 2)]))
    return images
