"""Puts the outputs of overlapping tiles together without a seam, row of tiles by row of tiles.

A tile counts less towards its edges, where the model saw less of the surroundings, and the weights of all tiles over a
pixel add up to 1. Beyond the finished map only one band is kept: as high as a tile, as wide as the image, 4 bytes a
pixel. It needs numpy and nothing else, so that a bundle can carry it as it is.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt

from defectoscope.segmentation.arrays import UInt8Array
from defectoscope.segmentation.placement import TileGrid

_Weights = npt.NDArray[np.float32]


class TileBlend:
    """Collects the tiles of one image, in order."""

    def __init__(self, grid: TileGrid) -> None:
        """Begin with nothing.

        Args:
            grid: where the tiles lie.
        """
        self._grid = grid
        self._row_weights = _weigh(grid.tops, tile=grid.tile_hw[0], length=grid.shape_hw[0])
        self._column_weights = _weigh(grid.lefts, tile=grid.tile_hw[1], length=grid.shape_hw[1])
        self._map: UInt8Array = np.zeros(grid.shape_hw, dtype=np.uint8)
        self._band = np.zeros((min(grid.tile_hw[0], grid.shape_hw[0]), grid.shape_hw[1]), dtype=np.float32)
        self._band_top = 0
        self._band_is_blank = True

    def add(self, levels: UInt8Array, index: int) -> None:
        """Take what the model gave for one tile.

        Args:
            levels: (h, w) uint8, of the size of the tile's box in the image.
            index: of the tile, each one higher than the last.
        """
        row, column = divmod(index, len(self._grid.lefts))
        if self._grid.tops[row] != self._band_top:
            self._finish_rows(self._grid.tops[row])
        # Most tiles of most images show nothing at all.
        if levels.any():
            left, _, right, _ = self._grid.box_xyxy(index)
            weighted = levels * self._column_weights[column]
            weighted *= self._row_weights[row][:, np.newaxis]
            self._band[:, left:right] += weighted
            self._band_is_blank = False
        if index + 1 == self._grid.count:
            self._finish_rows(self._grid.shape_hw[0])

    def finish(self) -> UInt8Array:
        """Give the (H, W) uint8 levels of the whole image once every tile was added."""
        return self._map

    def _finish_rows(self, end: int) -> None:
        """Write the rows before ``end``, to which no further tile adds, and let the band begin there."""
        rows = end - self._band_top
        if not self._band_is_blank:
            finished = self._band[:rows]
            np.rint(finished, out=finished)
            self._map[self._band_top : end] = finished
            left = len(self._band) - rows
            self._band[:left] = self._band[rows:]
            self._band[left:] = 0
            self._band_is_blank = not self._band[:left].any()
        self._band_top = end


def _weigh(starts: tuple[int, ...], *, tile: int, length: int) -> list[_Weights]:
    """Give, for each place along one axis, the weights of a tile's pixels there; over each pixel they add up to 1."""
    extent = min(tile, length)
    overlap = min((before + extent - after for before, after in pairwise(starts)), default=0)
    # Where tiles overlap by more than half, the ramps meet in the middle.
    ramp = max(1, min(overlap, (extent + 1) // 2))
    places = np.arange(extent) + 0.5
    profile = np.minimum(np.minimum(places, extent - places) / ramp, 1)
    total = np.zeros(length)
    for start in starts:
        total[start : start + extent] += profile
    return [(profile / total[start : start + extent]).astype(np.float32) for start in starts]
