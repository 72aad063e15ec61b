"""Where an image lies in the inputs of a model: the box of a letterbox, the grid of tiles. Integers, no pixels.

It needs nothing but the standard library, so that a bundle can carry it as it is.
"""

from __future__ import annotations

from dataclasses import dataclass

#: Overlap of tiles where a contract does not say: some thirty pixels of context on either side of a border.
DEFAULT_OVERLAP_PX = 64
#: Of a small input at most this part of its shorter side overlaps where a contract does not say.
_DEFAULT_OVERLAP_PART = 4


def fit_box_xyxy(shape_hw: tuple[int, int], *, input_size_wh: tuple[int, int]) -> tuple[int, int, int, int]:
    """Give the largest box of an image's aspect ratio, to the pixel, in the middle of the input.

    Args:
        shape_hw: height and width of the image.
        input_size_wh: width and height the model sees.

    Returns:
        Left, top, right and bottom, the last two exclusive; at least one pixel either way.
    """
    height, width = shape_hw
    input_width, input_height = input_size_wh
    if width * input_height >= height * input_width:
        box_width, box_height = input_width, max(1, (2 * height * input_width + width) // (2 * width))
    else:
        box_width, box_height = max(1, (2 * width * input_height + height) // (2 * height)), input_height
    left, top = (input_width - box_width) // 2, (input_height - box_height) // 2
    return left, top, left + box_width, top + box_height


@dataclass(frozen=True, slots=True, kw_only=True)
class TileGrid:
    """Tiles of one size that cover an image, row by row from the top left.

    Attributes:
        shape_hw: height and width of the image.
        tile_hw: height and width of a tile, in pixels of the image.
        tops: first row of each row of tiles, ascending; the first is 0, and no tile but one larger than the image
            reaches beyond it.
        lefts: first column of each column of tiles, likewise.
    """

    shape_hw: tuple[int, int]
    tile_hw: tuple[int, int]
    tops: tuple[int, ...]
    lefts: tuple[int, ...]

    @property
    def count(self) -> int:
        """Number of tiles."""
        return len(self.tops) * len(self.lefts)

    def box_xyxy(self, index: int) -> tuple[int, int, int, int]:
        """Give the part of the image that a tile holds; the right and bottom are exclusive."""
        row, column = divmod(index, len(self.lefts))
        top, left = self.tops[row], self.lefts[column]
        height, width = self.shape_hw
        return left, top, min(left + self.tile_hw[1], width), min(top + self.tile_hw[0], height)


def default_overlap_px(input_size_wh: tuple[int, int]) -> int:
    """Give the overlap of tiles where nobody says, in pixels of an input of this width and height."""
    return min(DEFAULT_OVERLAP_PX, min(input_size_wh) // _DEFAULT_OVERLAP_PART)


def place_tiles(
    shape_hw: tuple[int, int], *, input_size_wh: tuple[int, int], overlap_px: int | None, model_scale: float
) -> TileGrid:
    """Lay tiles over an image.

    As few tiles as the overlap allows, spread evenly: the last one ends where the image ends, and what is left over
    widens every overlap alike, instead of that of the last tile only.

    Args:
        shape_hw: height and width of the image.
        input_size_wh: width and height the model sees.
        overlap_px: least overlap of neighbours in pixels of the input, at most half its shorter side; None for the
            default.
        model_scale: pixels of the input for each pixel of the image.
    """
    input_width, input_height = input_size_wh
    if overlap_px is None:
        overlap_px = default_overlap_px(input_size_wh)
    tile_hw = (max(1, round(input_height / model_scale)), max(1, round(input_width / model_scale)))
    overlap = round(overlap_px / model_scale)
    tops, lefts = (
        _spread(length, tile=tile, overlap=min(overlap, tile // 2))
        for length, tile in zip(shape_hw, tile_hw, strict=True)
    )
    return TileGrid(shape_hw=shape_hw, tile_hw=tile_hw, tops=tops, lefts=lefts)


def _spread(length: int, *, tile: int, overlap: int) -> tuple[int, ...]:
    if length <= tile:
        return (0,)
    count = -(-(length - overlap) // (tile - overlap))
    return tuple(number * (length - tile) // (count - 1) for number in range(count))
