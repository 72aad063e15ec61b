"""Makes what the network sees of a labelled image: the whole of it at the input's size, or a part at the model's scale.

The image is prepared by serving's own steps (`defectoscope.segmentation`); only the label's part is defined here.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from defectoscope.segmentation import IGNORED, ModelContract, UInt8Array, lay_out
from defectoscope.segmentation.layout import cut_tile
from defectoscope.segmentation.placement import TileGrid, fit_box_xyxy, place_tiles

#: Of the crops of an image with defects this share shows one. By chance alone hardly any would; were it all of them,
#: the network would learn that there is a defect wherever it looks.
_DEFECT_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class Sample:
    """One image, or a part of it.

    Attributes:
        pixels: (h, w, 3) uint8 RGB.
        class_mask: (h, w) uint8, 0 background, 1 defect, 255 ignored.
    """

    pixels: UInt8Array
    class_mask: UInt8Array


def fit_whole(sample: Sample, *, contract: ModelContract) -> Sample:
    """Bring an image and its label to the network's input size, stretched or letterboxed as the contract says.

    What a letterbox fills up is ignored.
    """
    shape_hw = (sample.pixels.shape[0], sample.pixels.shape[1])
    pixels = lay_out(shape_hw, contract=contract).model_input(sample.pixels, 0)
    if contract.resize_policy == "stretch":
        return Sample(pixels, resize_label(sample.class_mask, size_wh=contract.input_size_wh))
    left, top, right, bottom = fit_box_xyxy(shape_hw, input_size_wh=contract.input_size_wh)
    class_mask = np.full(pixels.shape[:2], IGNORED, dtype=np.uint8)
    class_mask[top:bottom, left:right] = resize_label(sample.class_mask, size_wh=(right - left, bottom - top))
    return Sample(pixels, class_mask)


def place_scored_tiles(shape_hw: tuple[int, int], *, contract: ModelContract) -> TileGrid:
    """Lay the fewest tiles over an image that cover it, so that hardly a pixel is scored twice."""
    return place_tiles(
        shape_hw, input_size_wh=contract.input_size_wh, overlap_px=0, model_scale=contract.model_scale or 1.0
    )


def cut_sample(sample: Sample, box_xyxy: tuple[int, int, int, int], *, contract: ModelContract) -> Sample:
    """Cut a tile out of an image and its label and bring it to the input's size; beyond the image is ignored."""
    left, top, right, bottom = box_xyxy
    tile_hw = _tile_hw(contract)
    pixels = cut_tile(sample.pixels, box_xyxy, tile_hw=tile_hw, input_hw=contract.input_size_wh[::-1])
    class_mask = np.full(tile_hw, IGNORED, dtype=np.uint8)
    class_mask[: bottom - top, : right - left] = sample.class_mask[top:bottom, left:right]
    return Sample(pixels, resize_label(class_mask, size_wh=contract.input_size_wh))


def draw_crop(sample: Sample, *, contract: ModelContract, chance: np.random.Generator) -> Sample:
    """Cut a tile out of an image at random.

    Half of the crops of an image that shows defects hold a pixel of one, drawn from all its defect pixels and anywhere
    in the crop: a network that found them in the middle only would miss those at the borders of tiles.

    Args:
        sample: the whole image.
        contract: gives the size and the scale of a tile.
        chance: what is drawn from.
    """
    height, width = sample.class_mask.shape
    tile_hw = _tile_hw(contract)
    rooms = [max(0, length - tile) for length, tile in zip((height, width), tile_hw, strict=True)]
    top, left = (int(chance.integers(room + 1)) for room in rooms)
    if chance.random() < _DEFECT_SHARE:
        defect_px = np.flatnonzero(sample.class_mask == 1)
        if len(defect_px):
            place = divmod(int(chance.choice(defect_px)), width)
            top, left = (
                min(max(0, at - int(chance.integers(tile))), room)
                for at, tile, room in zip(place, tile_hw, rooms, strict=True)
            )
    box_xyxy = (left, top, min(left + tile_hw[1], width), min(top + tile_hw[0], height))
    return cut_sample(sample, box_xyxy, contract=contract)


def resize_label(class_mask: UInt8Array, *, size_wh: tuple[int, int]) -> UInt8Array:
    """Bring a class mask to the network's input size by nearest neighbour: classes do not mix."""
    if class_mask.shape == size_wh[::-1]:
        return class_mask
    return np.asarray(cv2.resize(class_mask, size_wh, interpolation=cv2.INTER_NEAREST_EXACT), dtype=np.uint8)


def _tile_hw(contract: ModelContract) -> tuple[int, int]:
    return place_scored_tiles((1, 1), contract=contract).tile_hw
