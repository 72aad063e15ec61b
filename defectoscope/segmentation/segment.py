"""From pixels to defects through any engine: the one preprocessing and the one postprocessing of the product.

The worker, the trainer's evaluation, the export parity check and the offline prediction all come through here, each
with its own engine. Normalisation is not done here: it is part of the model (see ``contract``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from defectoscope.errors import InvalidImage, InvalidModel, InvalidRequest
from defectoscope.segmentation.arrays import UInt8Array
from defectoscope.segmentation.contract import Engine, ModelContract
from defectoscope.segmentation.regions import Defect, find_defects


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentationParams:
    """What may be chosen per job.

    Attributes:
        threshold: in (0, 1]; a pixel is defect when its probability is at least this.
        min_area_px: smaller regions are dropped, in pixels of the image at its own resolution.
    """

    threshold: float
    min_area_px: int

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 1:
            raise InvalidRequest("The threshold must be above 0 and at most 1.", threshold=self.threshold)
        if self.min_area_px < 0:
            raise InvalidRequest("The minimum area must not be negative.", min_area_px=self.min_area_px)

    @classmethod
    def from_contract(cls, contract: ModelContract) -> SegmentationParams:
        """Take the values the model was released with."""
        return cls(threshold=contract.threshold, min_area_px=contract.min_area_px)


@dataclass(frozen=True, slots=True, kw_only=True)
class Segmentation:
    """What was found in one image.

    Attributes:
        mask: (H, W) uint8, 0 background and 255 defect, at the image's own resolution.
        defects: its connected regions, largest first.
        defect_px: number of defect pixels, the sum of the defects' areas.
    """

    mask: UInt8Array
    defects: list[Defect]
    defect_px: int


def find_lowest_level(threshold: float) -> int:
    """Give the smallest uint8 level that counts as defect: the first whose level / 255 reaches the threshold.

    This is ceil(threshold * 255), free of the rounding that would make a threshold of k / 255 miss the level k.

    Args:
        threshold: in (0, 1].

    Returns:
        1 to 255.
    """
    return int(np.argmax(np.arange(256) / 255 >= threshold))


def to_model_input(pixels: UInt8Array, *, contract: ModelContract) -> UInt8Array:
    """Bring an image to the size the model sees.

    Args:
        pixels: (H, W, 3) uint8 RGB, at least 1 x 1.
        contract: of the model.

    Returns:
        (h, w, 3) uint8 RGB, C-contiguous.

    Raises:
        InvalidImage: the array is no such image.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.size == 0:  # noqa: PLR2004
        raise InvalidImage(
            f"An image is a (H, W, 3) uint8 array; this one is {pixels.shape} {pixels.dtype}.",
            shape=list(pixels.shape),
            dtype=str(pixels.dtype),
        )
    width, height = contract.input_size_wh
    return _resize(pixels, shape_hw=(height, width))


def to_image_size(probabilities: UInt8Array, *, shape_hw: tuple[int, int]) -> UInt8Array:
    """Bring one output of the model to the size of its image.

    Args:
        probabilities: (h, w) uint8; 255 is a certain defect.
        shape_hw: height and width of the image.

    Returns:
        (H, W) uint8, C-contiguous.
    """
    return _resize(probabilities, shape_hw=shape_hw)


def from_model_output(
    probabilities: UInt8Array, *, shape_hw: tuple[int, int], params: SegmentationParams
) -> Segmentation:
    """Turn one output of the model into a mask and its defects at the image's own resolution.

    Probabilities are resized first and compared afterwards, so that edges are smooth instead of stepped.

    Args:
        probabilities: (h, w) uint8; 255 is a certain defect.
        shape_hw: height and width of the image.
        params: threshold and minimum area.

    Returns:
        The segmentation.
    """
    resized = to_image_size(probabilities, shape_hw=shape_hw)
    lowest_level = find_lowest_level(params.threshold)
    mask = np.where(resized >= lowest_level, np.uint8(255), np.uint8(0))
    mask, defects = find_defects(mask, resized, min_area_px=params.min_area_px)
    return Segmentation(mask=mask, defects=defects, defect_px=sum(defect.area_px for defect in defects))


def segment(
    image: UInt8Array, *, engine: Engine, contract: ModelContract, params: SegmentationParams | None = None
) -> Segmentation:
    """Segment one image; see ``segment_batch``."""
    return segment_batch([image], engine=engine, contract=contract, params=params)[0]


def segment_batch(
    images: Sequence[UInt8Array],
    *,
    engine: Engine,
    contract: ModelContract,
    params: SegmentationParams | None = None,
) -> list[Segmentation]:
    """Segment images of any sizes in one call of the engine.

    Args:
        images: (H, W, 3) uint8 RGB each; sizes may differ.
        engine: runs the model.
        contract: of that model.
        params: threshold and minimum area; the contract's own by default.

    Returns:
        One segmentation for each image, in order; no images give no segmentations and no call of the engine.

    Raises:
        InvalidImage: an array is no such image.
        InvalidModel: the engine's output does not have the shape or type of the contract.
    """
    if not images:
        return []
    params = params or SegmentationParams.from_contract(contract)
    inputs = np.stack([to_model_input(image, contract=contract) for image in images])  # (N, h, w, 3)
    outputs = engine(inputs)  # (N, h, w)
    if outputs.shape != inputs.shape[:3] or outputs.dtype != np.uint8:
        raise InvalidModel(
            f"The model gave {outputs.shape} {outputs.dtype} where the contract demands {inputs.shape[:3]} uint8.",
            shape=list(outputs.shape),
            dtype=str(outputs.dtype),
        )
    return [
        from_model_output(output, shape_hw=(image.shape[0], image.shape[1]), params=params)
        for image, output in zip(images, outputs, strict=True)
    ]


def _resize(array: UInt8Array, *, shape_hw: tuple[int, int]) -> UInt8Array:
    """Shrink by the mean over the covered area, then enlarge linearly; each axis takes the step it needs.

    Linear sampling alone would skip pixels when shrinking, and a scratch one pixel wide would come and go with its
    position. Where one axis shrinks and the other grows, OpenCV's area mode would not be an area mean, hence two steps.
    """
    height, width = shape_hw
    shrunk_hw = (min(height, array.shape[0]), min(width, array.shape[1]))
    if shrunk_hw != array.shape[:2]:
        array = np.asarray(cv2.resize(array, shrunk_hw[::-1], interpolation=cv2.INTER_AREA), dtype=np.uint8)
    if shape_hw != shrunk_hw:
        array = np.asarray(cv2.resize(array, (width, height), interpolation=cv2.INTER_LINEAR), dtype=np.uint8)
    return np.ascontiguousarray(array)
