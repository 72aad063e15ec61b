"""Scores every candidate of threshold and minimum area on labelled images, with one run of the engine for each image.

The counts are those of the masks that would be served (a test holds them against each other), without the measures
that nobody asks for here. Of an image only two numbers for each candidate are kept, so that memory does not grow with
the resolution.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from defectoscope.segmentation import (
    Assembly,
    Engine,
    ModelContract,
    PixelCounts,
    UInt8Array,
    assemble_batch,
    find_lowest_level,
)
from defectoscope.segmentation.metrics import IGNORED
from trainer.data import LabelledFile
from trainer.hardware import available_cores


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """What N images give at each of T thresholds and A minimum areas.

    Attributes:
        thresholds: T, ascending, in (0, 1].
        min_areas_px: A, ascending, in pixels of the images.
        iou: (N, T, A) float32, intersection over union of the defect class.
        is_called: (N, T, A) bool, whether a defect is claimed anywhere outside the ignored pixels.
        is_defective: (N,) bool, whether the label shows a defect.
        is_clean: (N,) bool, whether the label shows background only; an image that is all ignored is neither.
    """

    thresholds: tuple[float, ...]
    min_areas_px: tuple[int, ...]
    iou: npt.NDArray[np.float32]
    is_called: npt.NDArray[np.bool_]
    is_defective: npt.NDArray[np.bool_]
    is_clean: npt.NDArray[np.bool_]


def sweep(
    files: Sequence[LabelledFile],
    *,
    engine: Engine,
    contract: ModelContract,
    thresholds: Sequence[float],
    min_areas_px: Sequence[int],
    batch_size: int = 8,
    check: Callable[[], None] = lambda: None,
) -> Sweep:
    """Segment every image at every candidate.

    Args:
        files: the images; they are decoded a batch at a time.
        engine: runs the model.
        contract: of that model; its threshold and minimum area do not matter here.
        thresholds: candidates, ascending, in (0, 1], at least one.
        min_areas_px: candidates, ascending, at least one.
        batch_size: images handed to the engine at once.
        check: asked before each batch whether to stop; it raises what it means.

    Returns:
        The scores: 5 bytes for each image and candidate.

    Raises:
        InvalidDataset: a file cannot be used.
        InvalidModel: the engine's output does not keep the contract.
    """
    shape = (len(files), len(thresholds), len(min_areas_px))
    iou = np.empty(shape, dtype=np.float32)
    is_called = np.empty(shape, dtype=np.bool_)
    labels = np.empty((len(files), 2), dtype=np.bool_)

    def measure(row: int, assembly: Assembly, class_mask: UInt8Array) -> None:
        candidates = _count_candidates(assembly.levels(), class_mask, thresholds=thresholds, min_areas_px=min_areas_px)
        iou[row] = [[counts.iou_defect for counts in at_threshold] for at_threshold in candidates]
        is_called[row] = [[counts.tp + counts.fp > 0 for counts in at_threshold] for at_threshold in candidates]
        labels[row] = [(class_mask == 1).any(), (class_mask == 0).any()]

    with ThreadPoolExecutor(available_cores(), thread_name_prefix="sweep") as pool:
        for first in range(0, len(files), batch_size):
            check()
            decoded = [file.decode() for file in files[first : first + batch_size]]
            assemblies = assemble_batch([pixels for pixels, _ in decoded], engine=engine, contract=contract)
            rows = range(first, first + len(decoded))
            # The list raises what a thread raised.
            list(pool.map(measure, rows, assemblies, [class_mask for _, class_mask in decoded]))
    return Sweep(
        thresholds=tuple(thresholds),
        min_areas_px=tuple(min_areas_px),
        iou=iou,
        is_called=is_called,
        is_defective=labels[:, 0],
        is_clean=~labels[:, 0] & labels[:, 1],
    )


def _count_candidates(
    levels: UInt8Array, class_mask: UInt8Array, *, thresholds: Sequence[float], min_areas_px: Sequence[int]
) -> list[list[PixelCounts]]:
    """Return the counts of one image by threshold and by minimum area.

    These are the counts of the masks at each candidate; ``levels`` are those of the image at its own resolution.
    Regions are found once for a threshold and not measured, since only their pixels count here; all minimum areas
    together then cost little more than one.
    """
    counted: list[list[PixelCounts]] = []
    claimed_px = -1
    for threshold in thresholds:
        mask = (levels >= find_lowest_level(threshold)).view(np.uint8)
        # A mask lies within that of any lower threshold: of the same size, it is the same.
        if (size_px := int(np.count_nonzero(mask))) != claimed_px:
            claimed_px = size_px
            counted.append(_count_areas(mask, class_mask, min_areas_px=min_areas_px))
        else:
            counted.append(counted[-1])
    return counted


def _count_areas(mask: UInt8Array, class_mask: UInt8Array, *, min_areas_px: Sequence[int]) -> list[PixelCounts]:
    """Return the counts of one mask by minimum area; regions touch across corners too, as `find_defects` has it."""
    region_count, raw_regions, raw_stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    regions: npt.NDArray[np.int32] = np.asarray(raw_regions, dtype=np.int32)  # (H, W), 0 is background
    areas = np.asarray(raw_stats, dtype=np.int64)[:, cv2.CC_STAT_AREA]  # (R,)
    tp = np.bincount(regions[class_mask == 1], minlength=region_count)
    ignored = np.bincount(regions[class_mask == IGNORED], minlength=region_count)
    fp = areas - tp - ignored
    positives, negatives = int(tp.sum()), int(fp.sum())
    counted = []
    for min_area_px in min_areas_px:
        is_kept = areas >= min_area_px
        is_kept[0] = False
        found, called = int(tp[is_kept].sum()), int(fp[is_kept].sum())
        counted.append(PixelCounts(found, called, positives - found, negatives - called))
    return counted
