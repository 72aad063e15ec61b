"""From pixels to defects through any engine: the one way through the model for whoever has images in memory.

The trainer's evaluation, the export parity check and the offline prediction all come through here, each with its own
engine; the worker takes the same steps one by one (see ``layout``). Normalisation is not done here: it is part of the
model (see ``contract``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np

from defectoscope.errors.models import InvalidModel
from defectoscope.segmentation.arrays import UInt8Array
from defectoscope.segmentation.contract import Engine, ModelContract
from defectoscope.segmentation.layout import Assembly, demand_image, lay_out
from defectoscope.segmentation.resize import resize
from defectoscope.segmentation.threshold import (
    Segmentation,
    SegmentationParams,
    apply_threshold,
    find_lowest_level,
    find_nothing,
)

#: A batch of fewer images still hands the engine this many inputs at once where an image becomes many tiles.
_LEAST_BATCH = 8


def to_model_input(pixels: UInt8Array, *, contract: ModelContract) -> UInt8Array:
    """Stretch an image to the size the model sees.

    Args:
        pixels: (H, W, 3) uint8 RGB, at least 1 x 1.
        contract: of the model.

    Returns:
        (h, w, 3) uint8 RGB, C-contiguous.

    Raises:
        InvalidImage: the array is no such image.
    """
    demand_image(pixels)
    return lay_out((pixels.shape[0], pixels.shape[1]), contract=contract, policy="stretch").model_input(pixels, 0)


def from_model_output(
    probabilities: UInt8Array, *, shape_hw: tuple[int, int], params: SegmentationParams
) -> Segmentation:
    """Turn the output for a stretched image into a mask and its defects at the image's own resolution.

    Args:
        probabilities: (h, w) uint8; 255 is a certain defect.
        shape_hw: height and width of the image.
        params: threshold and minimum area.

    Returns:
        The segmentation.
    """
    if int(probabilities.max()) < find_lowest_level(params.threshold):
        return find_nothing(shape_hw)
    return apply_threshold(resize(probabilities, shape_hw=shape_hw), params=params)


def segment(
    image: UInt8Array,
    *,
    engine: Engine,
    contract: ModelContract,
    params: SegmentationParams | None = None,
    policy: str | None = None,
) -> Segmentation:
    """Segment one image; see ``segment_batch``."""
    return segment_batch([image], engine=engine, contract=contract, params=params, policy=policy)[0]


def segment_batch(
    images: Sequence[UInt8Array],
    *,
    engine: Engine,
    contract: ModelContract,
    params: SegmentationParams | None = None,
    policy: str | None = None,
) -> list[Segmentation]:
    """Segment images of any sizes.

    Args:
        images: (H, W, 3) uint8 RGB each; sizes may differ.
        engine: runs the model; once where every image becomes one input, and otherwise as often as batches of as many
            inputs as there are images, or of eight, need.
        contract: of that model.
        params: threshold and minimum area; the contract's own by default.
        policy: a `ResizePolicy`; the contract's own by default.

    Returns:
        One segmentation for each image, in order; no images give no segmentations and no call of the engine.

    Raises:
        InvalidImage: an array is no such image.
        InvalidModel: the engine's output does not have the shape or type of the contract.
        InvalidRequest: there is no such policy.
    """
    params = params or SegmentationParams.from_contract(contract)
    assemblies = assemble_batch(images, engine=engine, contract=contract, policy=policy)
    return [assembly.finish(params) for assembly in assemblies]


def assemble_batch(
    images: Sequence[UInt8Array], *, engine: Engine, contract: ModelContract, policy: str | None = None
) -> Iterator[Assembly]:
    """Run images of any sizes through the model and leave threshold and minimum area to the caller.

    Args:
        images: (H, W, 3) uint8 RGB each; sizes may differ.
        engine: runs the model, as ``segment_batch`` says.
        contract: of that model.
        policy: a `ResizePolicy`; the contract's own by default.

    Yields:
        What was assembled of each image, in order, as soon as it is complete.

    Raises:
        InvalidImage: an array is no such image.
        InvalidModel: the engine's output does not have the shape or type of the contract.
        InvalidRequest: there is no such policy.
    """
    for image in images:
        demand_image(image)
    layouts = [lay_out((image.shape[0], image.shape[1]), contract=contract, policy=policy) for image in images]
    places = ((number, index) for number, layout in enumerate(layouts) for index in range(layout.count))
    assembly: Assembly | None = None
    while batch := list(islice(places, max(len(images), _LEAST_BATCH))):
        inputs = np.stack([layouts[number].model_input(images[number], index) for number, index in batch])
        outputs = engine(inputs)  # (n, h, w, 3) to (n, h, w)
        if outputs.shape != inputs.shape[:3] or outputs.dtype != np.uint8:
            raise InvalidModel(
                f"The model gave {outputs.shape} {outputs.dtype} where the contract demands {inputs.shape[:3]} uint8.",
                shape=list(outputs.shape),
                dtype=str(outputs.dtype),
            )
        for (number, index), output in zip(batch, outputs, strict=True):
            if assembly is None:
                assembly = layouts[number].assembly()
            assembly.add(output, index)
            if index + 1 == layouts[number].count:
                yield assembly
                assembly = None
