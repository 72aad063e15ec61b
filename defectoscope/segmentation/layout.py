"""Turns an image of any size into inputs of the model, and their outputs into one segmentation of the image.

There are three ways, the resize policies. "stretch" brings the image to the input's size whatever its aspect ratio.
"letterbox" keeps the ratio and fills the rest of the input. "tile" cuts the image into overlapping tiles, by default
pixel by pixel, so that nothing is lost by shrinking; it costs one run of the model for each tile.

What is filled repeats the outermost pixels of the image: a constant colour would make an edge that looks like a defect
and depends on how the model normalises, and a reflection would show a defect twice. No output there is ever looked at.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np

from defectoscope.errors.api import InvalidRequest
from defectoscope.errors.images import InvalidImage
from defectoscope.segmentation.arrays import UInt8Array
from defectoscope.segmentation.blending import TileBlend
from defectoscope.segmentation.contract import RESIZE_POLICIES, ModelContract, ResizePolicy
from defectoscope.segmentation.placement import TileGrid, fit_box_xyxy, place_tiles
from defectoscope.segmentation.resize import resize
from defectoscope.segmentation.threshold import (
    Segmentation,
    SegmentationParams,
    apply_threshold,
    find_lowest_level,
    find_nothing,
)


class Assembly(Protocol):
    """Collects the outputs of one image. Beside them it holds a byte for each pixel of the image, or less."""

    def add(self, output: UInt8Array, index: int) -> None:
        """Take one output of the model; it is not kept as it is and may be written over afterwards.

        Args:
            output: (h, w) uint8 of the input's size; 255 is a certain defect.
            index: of the input, in order: 0 to the layout's count - 1.
        """
        ...

    def levels(self) -> UInt8Array:
        """Give the probabilities as (H, W) uint8 at the image's own resolution, once every output was added."""
        ...

    def finish(self, params: SegmentationParams) -> Segmentation:
        """Give the mask and the defects at the image's own resolution, once every output was added."""
        ...


class Layout(Protocol):
    """How one image becomes inputs of the model."""

    @property
    def policy(self) -> ResizePolicy:
        """Which of the three ways this is."""
        ...

    @property
    def count(self) -> int:
        """Inputs that the image becomes; 1 for stretch and letterbox."""
        ...

    @property
    def model_scale(self) -> float:
        """Pixels of the input for each pixel of the image; of the axis that loses more where the two differ."""
        ...

    @property
    def least_size_wh(self) -> tuple[int, int]:
        """An image may be reduced to this width and height, or to anything larger, before `model_input`."""
        ...

    def model_input(self, pixels: UInt8Array, index: int) -> UInt8Array:
        """Give one input of the model.

        Args:
            pixels: (H, W, 3) uint8 RGB, the image or a reduction of it.
            index: 0 to count - 1.

        Returns:
            (h, w, 3) uint8 RGB, C-contiguous. It may share its memory with the image.

        Raises:
            InvalidImage: the array is no such image.
        """
        ...

    def assembly(self) -> Assembly:
        """Begin to collect the outputs."""
        ...


def lay_out(shape_hw: tuple[int, int], *, contract: ModelContract, policy: str | None = None) -> Layout:
    """Choose how an image becomes inputs of a model.

    Args:
        shape_hw: height and width of the image at its own resolution, at least 1 x 1.
        contract: of the model.
        policy: a `ResizePolicy`; None for the contract's own. A contract that says nothing of tiles gives them the
            image's own pixels and an overlap of 64 pixels, or of a quarter of an input that is small.

    Raises:
        InvalidRequest: there is no such policy.
    """
    policy = policy or contract.resize_policy
    input_width, input_height = contract.input_size_wh
    if policy == "stretch":
        return _Whole(shape_hw, (input_height, input_width), (0, 0, input_width, input_height), "stretch")
    if policy == "letterbox":
        box_xyxy = fit_box_xyxy(shape_hw, input_size_wh=contract.input_size_wh)
        return _Whole(shape_hw, (input_height, input_width), box_xyxy, "letterbox")
    if policy == "tile":
        model_scale = contract.model_scale or 1.0
        grid = place_tiles(
            shape_hw,
            input_size_wh=contract.input_size_wh,
            overlap_px=contract.tile_overlap_px,
            model_scale=model_scale,
        )
        return _Tiled(grid, (input_height, input_width), model_scale)
    raise InvalidRequest(
        f'There is no resize policy "{policy}"; there are {", ".join(RESIZE_POLICIES)}.', resize_policy=policy
    )


@dataclass(frozen=True, slots=True)
class _Whole:
    """The whole image in one input, in a box of it."""

    shape_hw: tuple[int, int]
    input_hw: tuple[int, int]
    box_xyxy: tuple[int, int, int, int]
    policy: ResizePolicy

    @property
    def count(self) -> int:
        return 1

    @property
    def model_scale(self) -> float:
        left, top, right, bottom = self.box_xyxy
        return min((bottom - top) / self.shape_hw[0], (right - left) / self.shape_hw[1])

    @property
    def least_size_wh(self) -> tuple[int, int]:
        left, top, right, bottom = self.box_xyxy
        return min(right - left, self.shape_hw[1]), min(bottom - top, self.shape_hw[0])

    def model_input(self, pixels: UInt8Array, index: int) -> UInt8Array:  # noqa: ARG002 -- there is but one
        demand_image(pixels)
        left, top, right, bottom = self.box_xyxy
        return fill(resize(pixels, shape_hw=(bottom - top, right - left)), shape_hw=self.input_hw, at_xy=(left, top))

    def assembly(self) -> Assembly:
        return _WholeAssembly(self)


class _WholeAssembly:
    def __init__(self, layout: _Whole) -> None:
        self._layout = layout
        self._small = np.empty((0, 0), dtype=np.uint8)

    def add(self, output: UInt8Array, index: int) -> None:  # noqa: ARG002 -- there is but one
        left, top, right, bottom = self._layout.box_xyxy
        self._small = output[top:bottom, left:right].copy()

    def levels(self) -> UInt8Array:
        return resize(self._small, shape_hw=self._layout.shape_hw)

    def finish(self, params: SegmentationParams) -> Segmentation:
        # Enlarging interpolates and never exceeds the highest level: where that is too low, nothing is to be found.
        if int(self._small.max()) < find_lowest_level(params.threshold):
            return find_nothing(self._layout.shape_hw)
        # Enlarged first and compared afterwards, so that edges are smooth instead of stepped.
        return apply_threshold(self.levels(), params=params)


@dataclass(frozen=True, slots=True)
class _Tiled:
    """Tiles of the image, one in each input."""

    grid: TileGrid
    input_hw: tuple[int, int]
    model_scale: float

    @property
    def policy(self) -> ResizePolicy:
        return "tile"

    @property
    def count(self) -> int:
        return self.grid.count

    @property
    def least_size_wh(self) -> tuple[int, int]:
        return self.grid.shape_hw[1], self.grid.shape_hw[0]

    def model_input(self, pixels: UInt8Array, index: int) -> UInt8Array:
        demand_image(pixels)
        if pixels.shape[:2] != self.grid.shape_hw:
            height, width = self.grid.shape_hw
            raise InvalidImage(
                f"Tiles are cut from the image of {width} x {height} pixels; this one has "
                f"{pixels.shape[1]} x {pixels.shape[0]}.",
                shape=list(pixels.shape),
            )
        return cut_tile(pixels, self.grid.box_xyxy(index), tile_hw=self.grid.tile_hw, input_hw=self.input_hw)

    def assembly(self) -> Assembly:
        return _TiledAssembly(self)


class _TiledAssembly:
    def __init__(self, layout: _Tiled) -> None:
        self._layout = layout
        self._blend = TileBlend(layout.grid)
        self._highest = 0

    def add(self, output: UInt8Array, index: int) -> None:
        self._highest = max(self._highest, int(output.max()))
        left, top, right, bottom = self._layout.grid.box_xyxy(index)
        levels = resize(output, shape_hw=self._layout.grid.tile_hw)[: bottom - top, : right - left]
        self._blend.add(levels, index)

    def levels(self) -> UInt8Array:
        return self._blend.finish()

    def finish(self, params: SegmentationParams) -> Segmentation:
        # A mean never exceeds the highest level.
        if self._highest < find_lowest_level(params.threshold):
            return find_nothing(self._layout.grid.shape_hw)
        return apply_threshold(self.levels(), params=params)


def cut_tile(
    pixels: UInt8Array, box_xyxy: tuple[int, int, int, int], *, tile_hw: tuple[int, int], input_hw: tuple[int, int]
) -> UInt8Array:
    """Cut a tile out of an image and bring it to the size of the input.

    Args:
        pixels: (H, W, 3) uint8.
        box_xyxy: what to cut, within the image.
        tile_hw: size of a whole tile; where the box is smaller, it is filled up on the right and at the bottom.
        input_hw: height and width the model sees.

    Returns:
        (h, w, 3) uint8, C-contiguous.
    """
    left, top, right, bottom = box_xyxy
    return resize(fill(pixels[top:bottom, left:right], shape_hw=tile_hw, at_xy=(0, 0)), shape_hw=input_hw)


def fill(pixels: UInt8Array, *, shape_hw: tuple[int, int], at_xy: tuple[int, int]) -> UInt8Array:
    """Put an image into a larger one, the outermost pixels repeated around it; one of that size stays as it is."""
    if pixels.shape[:2] == shape_hw:
        return pixels
    left, top = at_xy
    right, bottom = shape_hw[1] - left - pixels.shape[1], shape_hw[0] - top - pixels.shape[0]
    filled = cv2.copyMakeBorder(pixels, top, bottom, left, right, cv2.BORDER_REPLICATE)
    return np.asarray(filled, dtype=np.uint8)


def demand_image(pixels: UInt8Array) -> None:
    """Let a (H, W, 3) uint8 array of at least one pixel pass.

    Raises:
        InvalidImage: it is something else.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.size == 0:  # noqa: PLR2004
        raise InvalidImage(
            f"An image is a (H, W, 3) uint8 array; this one is {pixels.shape} {pixels.dtype}.",
            shape=list(pixels.shape),
            dtype=str(pixels.dtype),
        )
