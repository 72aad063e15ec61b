"""Proves that an exported file gives the masks of the network it came from, on real validation images.

Both go through the serving pipeline, one image at a time and all in batches, non-square images included. A file that
differs is refused with its figures; nothing here may be switched off. Variants are held against the network, too, and
int8 also against the labels: what counts there is what it loses.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from defectoscope.errors.training import ExportParityFailed
from defectoscope.segmentation import (
    Engine,
    ModelContract,
    PixelCounts,
    UInt8Array,
    lay_out,
    per_image_mean,
    segment_batch,
)
from trainer.data import LabelledFile

#: Images compared at most, evenly spread over the validation side.
MAX_IMAGES = 32
#: Of images that become many tiles fewer are compared: as many as give about so many inputs of the model, or four.
MAX_INPUTS = 128
_LEAST_IMAGES = 4
#: How much of the validation IoU int8 may lose against fp32.
MAX_IOU_LOSS = 0.005


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """How far a file may be from its network.

    Attributes:
        precision: of the file.
        min_mask_iou: least intersection over union of the masks of both, pooled over the images.
        max_flipped_share: greatest share of images whose verdict flips.
    """

    precision: str
    min_mask_iou: float
    max_flipped_share: float


FP32 = Tolerance(precision="fp32", min_mask_iou=0.999, max_flipped_share=0)
FP16 = Tolerance(precision="fp16", min_mask_iou=0.995, max_flipped_share=0.01)
#: The masks of int8 are measured, too, but judged by the labels: see `demand_scores`.
INT8 = Tolerance(precision="int8", min_mask_iou=0, max_flipped_share=0.01)


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


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreLoss:
    """What a variant loses against the fp32 file on labelled images, every one of the validation side.

    Attributes:
        validation_images: images scored.
        validation_iou: of the variant: IoU of the defect class, mean over the images.
        validation_iou_fp32: the same of the fp32 file.
        validation_flipped_verdicts: images where one claims a defect and the other none; ignored pixels do not count.
    """

    validation_images: int
    validation_iou: float
    validation_iou_fp32: float
    validation_flipped_verdicts: int

    def to_json(self) -> dict[str, Any]:
        """Return the figures as JSON-ready values."""
        return asdict(self)


def remember(engine: Engine) -> Engine:
    """Return an engine that is asked once for each batch: a network is slow, and several files are held against it."""
    known: dict[tuple[tuple[int, ...], bytes], UInt8Array] = {}

    def run(images: UInt8Array) -> UInt8Array:
        key = (images.shape, hashlib.sha256(images.tobytes()).digest())
        if key not in known:
            known[key] = engine(images)
        return known[key]

    return run


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
        files: validation images, at least one; at most `MAX_IMAGES` of them are used.
        reference: the network itself.
        exported: the file.
        contract: of both.
        batch_size: the full batch; every image is also run alone.
        check: asked before each comparison whether to stop; it raises what it means.
    """
    images = _choose(files, contract=contract)
    # The network is asked once, in batches: it is the truth here, and by far the slower of the two.
    batches = [images[start : start + batch_size] for start in range(0, len(images), batch_size)]
    largest = overlap = union = 0
    flipped: set[int] = set()
    for number, batch in enumerate(batches):
        check()
        expected = _Recorder(reference)
        wanted = segment_batch(batch, engine=expected, contract=contract)
        for groups in ([batch], [[image] for image in batch]):
            actual = _Recorder(exported)
            found = [one for group in groups for one in segment_batch(group, engine=actual, contract=contract)]
            largest = max(largest, int(np.abs(expected.levels() - actual.levels()).max()))
            for place, (ours, theirs) in enumerate(zip(wanted, found, strict=True)):
                claimed, given = ours.mask != 0, theirs.mask != 0
                overlap += int(np.count_nonzero(claimed & given))
                union += int(np.count_nonzero(claimed | given))
                if bool(ours.defects) != bool(theirs.defects):
                    flipped.add(number * batch_size + place)
    return Parity(
        images=len(images),
        batch_size=min(batch_size, len(images)),
        max_level_difference=largest,
        mask_iou=overlap / union if union else 1.0,
        flipped_verdicts=len(flipped),
    )


def demand(parity: Parity, tolerance: Tolerance = FP32) -> None:
    """Let figures within the tolerance pass.

    Raises:
        ExportParityFailed: they are not; its details are the figures.
    """
    allowed = int(tolerance.max_flipped_share * parity.images)
    if parity.mask_iou < tolerance.min_mask_iou or parity.flipped_verdicts > allowed:
        raise ExportParityFailed(
            f"The {tolerance.precision} model differs from the trained one: mask IoU {parity.mask_iou:.4f} where "
            f"{tolerance.min_mask_iou} is needed, {parity.flipped_verdicts} flipped verdicts where {allowed} may be, "
            f"probabilities up to {parity.max_level_difference}/255 apart, on {parity.images} images; "
            "it was not registered.",
            **parity.to_json(),
        )


def measure_loss(counts: Sequence[PixelCounts], *, fp32_counts: Sequence[PixelCounts]) -> ScoreLoss:
    """Compare the scores of a variant with those of the fp32 file.

    Args:
        counts: of the variant, one for each validation image, at least one.
        fp32_counts: of the fp32 file, on the same images in the same order.
    """
    pairs = list(zip(counts, fp32_counts, strict=True))
    iou, iou_fp32 = (per_image_mean(side, lambda count: count.iou_defect) or 0.0 for side in (counts, fp32_counts))
    return ScoreLoss(
        validation_images=len(pairs),
        validation_iou=iou,
        validation_iou_fp32=iou_fp32,
        validation_flipped_verdicts=sum(_claims(ours) != _claims(theirs) for ours, theirs in pairs),
    )


def demand_scores(loss: ScoreLoss, tolerance: Tolerance = INT8) -> None:
    """Let a variant pass that loses little on labelled images.

    Raises:
        ExportParityFailed: it loses more; its details are the figures.
    """
    allowed = int(tolerance.max_flipped_share * loss.validation_images)
    lost = loss.validation_iou_fp32 - loss.validation_iou
    if lost > MAX_IOU_LOSS or loss.validation_flipped_verdicts > allowed:
        raise ExportParityFailed(
            f"The {tolerance.precision} model is worse than the fp32 one: validation IoU {loss.validation_iou:.4f} "
            f"against {loss.validation_iou_fp32:.4f} where a loss of {MAX_IOU_LOSS} is allowed, "
            f"{loss.validation_flipped_verdicts} flipped verdicts where {allowed} may be, on "
            f"{loss.validation_images} images; it was not registered.",
            **loss.to_json(),
        )


def _claims(counts: PixelCounts) -> bool:
    return counts.tp + counts.fp > 0


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


def _choose(files: Sequence[LabelledFile], *, contract: ModelContract) -> list[UInt8Array]:
    """Decode images evenly spread over the files, and see to it that one of them is not square."""
    shape = files[0].decode()[0].shape
    inputs = lay_out((shape[0], shape[1]), contract=contract).count
    step = max(1, -(-len(files) // min(MAX_IMAGES, max(_LEAST_IMAGES, MAX_INPUTS // inputs))))
    images = [file.decode()[0] for file in files[::step]]
    if all(image.shape[0] == image.shape[1] for image in images):
        first = images[0]
        images.append(np.ascontiguousarray(first[: max(1, first.shape[0] // 2)]))
    return images
