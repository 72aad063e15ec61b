"""Proves that a model of the contract gives what the float model inside it gives, image by image and in batches.

The float model is asked one image at a time, normalised in numpy; the other one takes the bytes, in batches of 1, 2 and
7. Levels may differ by one step of 1/255, and a pixel may change its side of the threshold only where the float
model itself puts it on the edge between two levels.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from defectoscope.errors.models import ModelBatchFixed, ModelNotEqual, ModelNotRunnable, ModelOutputRefused
from defectoscope.segmentation import UInt8Array
from trainer.foreign.rewriting import MEAN, STD, Tail
from trainer.foreign.session import Run

#: Every one is tried.
BATCH_SIZES = (1, 2, 7)
_MAX_LEVEL_DIFFERENCE = 1
#: How near to the edge between two levels arithmetic in another order may decide otherwise, in levels.
_EDGE = 0.05
_RANK = 4

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """How far a model of the contract is from the float model inside it.

    Attributes:
        images: compared, each in batches of every size.
        batch_size: the largest batch.
        batch_sizes: all of them.
        max_level_difference: largest difference of a pixel's defect probability, in steps of 1/255.
        mask_iou: intersection over union of both defect masks, pooled; 1.0 where both are empty.
        flipped_verdicts: images where one mask is empty and the other is not.
        edge_pixels: pixels that changed sides, all of them on the edge of the threshold.
    """

    images: int
    batch_size: int
    batch_sizes: tuple[int, ...]
    max_level_difference: int
    mask_iou: float
    flipped_verdicts: int
    edge_pixels: int

    def to_json(self) -> dict[str, Any]:
        """Return the figures as JSON-ready values."""
        return {**asdict(self), "batch_sizes": list(self.batch_sizes)}


def draw_images(size_wh: tuple[int, int]) -> list[UInt8Array]:
    """Draw the eight images of a proof, (H, W, 3) uint8 each: noise, flat, smooth, regular, surfaces with defects."""
    width, height = size_wh
    rng = np.random.default_rng(20241123)
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    noise = rng.integers(0, 256, (height, width, 3)).astype(np.float64)
    smooth = np.stack([255 * x / max(width - 1, 1), 255 * y / max(height - 1, 1), 127 + 120 * np.sin((x + y) / 9)], 2)
    squares = np.where(((x // 8 + y // 8) % 2 == 0)[:, :, np.newaxis], [230.0, 200.0, 180.0], [20.0, 40.0, 60.0])
    surface = 150 + 20 * np.sin(x / 5)[:, :, np.newaxis] * [1.0, 0.9, 0.8] + rng.normal(0, 6, (height, width, 1))
    scratch = (np.abs(y - height / 2 - (x - width / 2) / 3) < max(1.0, height / 24))[:, :, np.newaxis]
    spots = (((x % 41 - 20) ** 2 + (y % 37 - 18) ** 2) < 30)[:, :, np.newaxis]  # noqa: PLR2004 -- a radius of 5.5
    drawn = [
        noise,
        surface - 100 * scratch,
        smooth,
        np.zeros((height, width, 3)),
        squares,
        np.full((height, width, 3), 255.0),
        surface + 90 * spots,
        0.5 * noise + 0.5 * smooth,
    ]
    return [np.clip(np.rint(image), 0, 255).astype(np.uint8) for image in drawn]


def normalise(image: UInt8Array) -> npt.NDArray[np.float32]:
    """Return an image as a notebook would hand it to the float model: (1, 3, H, W), by the statistics of ImageNet."""
    values = (image.astype(np.float64) - np.array(MEAN)) / np.array(STD)
    return np.ascontiguousarray(values.transpose(2, 0, 1)[np.newaxis], dtype=np.float32)


def exact_levels(output: npt.NDArray[np.float32], *, tail: Tail) -> FloatArray:
    """Return the defect probability that an output of the float model means, from 0 to 255 and not rounded.

    Args:
        output: (2, H, W) or (1, H, W).
        tail: what it is.

    Returns:
        (H, W) float64.
    """
    values = output.astype(np.float64)
    if tail != "logits":
        return np.asarray(255 * values[-1])
    difference = values[-1] - (values[0] if len(values) > 1 else 0.0)
    # The symmetric form overflows on neither side.
    return np.asarray(127.5 * (1 + np.tanh(difference / 2)))


def run_float(run: Run, image: UInt8Array, *, batch: int | None) -> npt.NDArray[np.float32]:
    """Run the float model on one image, repeated where it takes only a fixed number of them.

    Returns:
        (C, H, W), finite, with C of 1 or 2.

    Raises:
        ModelOutputRefused: the output has another shape or type, or holds what is no number.
        ModelNotRunnable: ONNX Runtime failed.
    """
    count = batch or 1
    output = run(np.repeat(normalise(image), count, axis=0))
    height, width = image.shape[:2]
    good = [(count, channels, height, width) for channels in (1, 2)]
    if output.dtype != np.float32 or output.ndim != _RANK or output.shape not in good:
        raise ModelOutputRefused(
            f"The model gives {output.dtype} of {output.shape} for {count} images of {width} x {height}, not float32 "
            f"logits of {good[0]} or {good[1]}.",
            shape=list(output.shape),
        )
    if not np.isfinite(output).all():
        raise ModelOutputRefused("The model gives values that are not numbers.")
    result: npt.NDArray[np.float32] = output[0]
    return result


def prove(images: list[UInt8Array], expected: list[FloatArray], *, served: Run, lowest_level: int) -> Proof:
    """Run a model of the contract in batches and compare it with what is expected.

    Args:
        images: (H, W, 3) uint8 each, at least as many as the largest batch.
        expected: from `exact_levels`, one for each image.
        served: the model of the contract.
        lowest_level: the smallest level that counts as defect.

    Raises:
        ModelNotEqual: it differs on single images.
        ModelBatchFixed: it agrees on single images and fails or differs in a batch.
    """
    single = _compare(images, expected, run=served, batch_size=1, lowest_level=lowest_level)
    if not single.is_equal:
        raise ModelNotEqual(
            "The converted model does not give the masks of the original: probabilities are up to "
            f"{single.max_level_difference}/255 apart and {single.wrong_pixels} pixels changed sides; it was not kept.",
            max_level_difference=single.max_level_difference,
            differing_pixels=single.wrong_pixels,
        )
    compared = [single]
    for batch_size in BATCH_SIZES[1:]:
        try:
            found = _compare(images, expected, run=served, batch_size=batch_size, lowest_level=lowest_level)
        except ModelNotRunnable as exc:
            raise ModelBatchFixed(
                f"The model cannot be made to take any number of images: with {batch_size} at once, {exc.message}",
                batch_size=batch_size,
            ) from exc
        if not found.is_equal:
            raise ModelBatchFixed(
                f"The model answers otherwise for {batch_size} images at once than for each alone: probabilities are "
                f"up to {found.max_level_difference}/255 apart.",
                batch_size=batch_size,
                max_level_difference=found.max_level_difference,
            )
        compared.append(found)
    union = sum(each.union for each in compared)
    return Proof(
        images=len(images),
        batch_size=max(BATCH_SIZES),
        batch_sizes=BATCH_SIZES,
        max_level_difference=max(each.max_level_difference for each in compared),
        mask_iou=sum(each.overlap for each in compared) / union if union else 1.0,
        flipped_verdicts=sum(each.flipped for each in compared),
        edge_pixels=sum(each.edge_pixels for each in compared),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Comparison:
    max_level_difference: int
    overlap: int
    union: int
    flipped: int
    edge_pixels: int
    wrong_pixels: int

    @property
    def is_equal(self) -> bool:
        return self.max_level_difference <= _MAX_LEVEL_DIFFERENCE and self.wrong_pixels == 0


def _compare(
    images: list[UInt8Array], expected: list[FloatArray], *, run: Run, batch_size: int, lowest_level: int
) -> _Comparison:
    starts = [min(start, len(images) - batch_size) for start in range(0, len(images), batch_size)]
    largest = overlap = union = flipped = edge = wrong = 0
    for start in starts:
        chosen = slice(start, start + batch_size)
        levels = run(np.stack(images[chosen]))
        exact = np.stack(expected[chosen])
        if levels.dtype != np.uint8 or levels.shape != exact.shape:
            raise ModelNotRunnable(f"The converted model gives {levels.dtype} of {levels.shape}.")
        wanted = np.rint(exact)
        largest = max(largest, int(np.abs(levels - wanted).max()))
        given, claimed = levels >= lowest_level, wanted >= lowest_level
        on_edge = np.abs(exact - (lowest_level - 0.5)) <= _EDGE
        edge += int(np.count_nonzero((given != claimed) & on_edge))
        wrong += int(np.count_nonzero((given != claimed) & ~on_edge))
        overlap += int(np.count_nonzero(given & claimed))
        union += int(np.count_nonzero(given | claimed))
        flipped += int(np.count_nonzero(given.any(axis=(1, 2)) != claimed.any(axis=(1, 2))))
    return _Comparison(
        max_level_difference=largest,
        overlap=overlap,
        union=union,
        flipped=flipped,
        edge_pixels=edge,
        wrong_pixels=wrong,
    )
