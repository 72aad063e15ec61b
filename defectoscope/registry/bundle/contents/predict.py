"""Finds defects in images, offline: ``python predict.py IMAGES OUT``.

IMAGES is a folder, or one image. OUT is a folder for masks (PNG, 0 and 255, at the image's own size), or a file that
ends in .json for one object of base64 PNG masks by file name. An image that cannot be read is named on standard error,
the others go on, and the exit status is 1. The model is model.onnx beside this file.

Needs onnxruntime, numpy and Pillow. What OpenCV does for the service is done here in numpy, to the same bits.
"""

# ruff: noqa: INP001 -- no part of a package: it stands at the top of its bundle
from __future__ import annotations

import argparse
import base64
import io
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime
from PIL import Image

from defectoscope.errors import DefectoscopeError
from defectoscope.layout import OutputNames, is_image_name
from defectoscope.segmentation.arrays import UInt8Array
from defectoscope.segmentation.blending import TileBlend
from defectoscope.segmentation.contract import INPUT_NAME, OUTPUT_NAME, ModelContract
from defectoscope.segmentation.decode import decode_image
from defectoscope.segmentation.placement import fit_box_xyxy, place_tiles

MODEL = Path(__file__).with_name("model.onnx")

Find = Callable[[UInt8Array], UInt8Array]
#: (h, w, 3) uint8 RGB of the model's size in, (h, w) uint8 levels out.
Run = Callable[[UInt8Array], UInt8Array]

#: Rows handled at once, so that a large image needs no large multiple of its memory.
_BAND = 256
_USAGE = 2
#: Fixed-point weights of linear interpolation, as OpenCV has them.
_ONE = 2048
#: A share of a pixel below this is nothing, as in OpenCV.
_LEAST_SHARE = 1e-3


def main(arguments: list[str] | None = None) -> int:
    """Segment what the command line names; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("images", type=Path, metavar="IMAGES", help="folder of images, or one image")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder for masks, or a file that ends in .json")
    options = parser.parse_args(arguments)
    images = dict(find_images(options.images, out=options.out))
    if not images:
        sys.stderr.write(f"error: there is no image in {options.images}\n")
        return _USAGE
    find = load_model(MODEL)
    failed = 0
    masks: dict[str, str] = {}
    names = OutputNames()
    to_json = options.out.suffix == ".json"
    for name, path in images.items():
        try:
            png = encode_png(find(decode_image(path.read_bytes()).pixels))
        except (DefectoscopeError, OSError) as exc:
            sys.stderr.write(f"{name}: {getattr(exc, 'message', exc)}\n")
            failed += 1
            continue
        if to_json:
            masks[name] = base64.b64encode(png).decode()
        else:
            target = options.out / f"{names.take(name)}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(png)
    if to_json:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(masks, indent=0) + "\n")
    sys.stderr.write(f"{len(images) - failed} of {len(images)} images segmented\n")
    return 1 if failed else 0


def find_images(root: Path, *, out: Path) -> Iterator[tuple[str, Path]]:
    """Yield the images below a folder by their paths in it, or the one file; what lies in OUT is passed over."""
    if root.is_file():
        yield root.name, root
        return
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if is_image_name(name) and path.is_file() and not path.resolve().is_relative_to(out.resolve()):
            yield name, path


def load_model(path: Path) -> Find:
    """Load a model and return what finds a mask: (H, W, 3) uint8 RGB in, (H, W) uint8 of 0 and 255 out."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    contract = ModelContract.from_metadata(session.get_modelmeta().custom_metadata_map)

    def run(seen: UInt8Array) -> UInt8Array:
        (levels,) = session.run([OUTPUT_NAME], {INPUT_NAME: seen[np.newaxis]})
        found: UInt8Array = levels[0]
        return found

    return make_find(run, contract=contract)


def make_find(run: Run, *, contract: ModelContract) -> Find:
    """Return what finds a mask, in the way that the contract brings images to the model's size."""

    def find(pixels: UInt8Array) -> UInt8Array:
        look = look_at_tiles if contract.resize_policy == "tile" else look_at_whole
        return to_mask(look(pixels, run, contract), shape_hw=pixels.shape[:2], contract=contract)

    return find


def look_at_whole(pixels: UInt8Array, run: Run, contract: ModelContract) -> UInt8Array:
    """Give the levels of an image that is stretched to the model's size, or letterboxed in it, at that size."""
    width, height = contract.input_size_wh
    left, top, right, bottom = 0, 0, width, height
    if contract.resize_policy == "letterbox":
        left, top, right, bottom = fit_box_xyxy((pixels.shape[0], pixels.shape[1]), input_size_wh=(width, height))
    small = resize(pixels, shape_hw=(bottom - top, right - left))
    return run(fill(small, shape_hw=(height, width), at_xy=(left, top)))[top:bottom, left:right]


def look_at_tiles(pixels: UInt8Array, run: Run, contract: ModelContract) -> UInt8Array:
    """Give the levels of an image that is cut into tiles, at its own size."""
    grid = place_tiles(
        (pixels.shape[0], pixels.shape[1]),
        input_size_wh=contract.input_size_wh,
        overlap_px=contract.tile_overlap_px,
        model_scale=contract.model_scale or 1.0,
    )
    blend = TileBlend(grid)
    for index in range(grid.count):
        left, top, right, bottom = grid.box_xyxy(index)
        tile = fill(pixels[top:bottom, left:right], shape_hw=grid.tile_hw, at_xy=(0, 0))
        levels = resize(run(resize(tile, shape_hw=contract.input_size_wh[::-1])), shape_hw=grid.tile_hw)
        blend.add(levels[: bottom - top, : right - left], index)
    return blend.finish()


def fill(pixels: UInt8Array, *, shape_hw: tuple[int, int], at_xy: tuple[int, int]) -> UInt8Array:
    """Put an image into a larger one, the outermost pixels repeated around it."""
    left, top = at_xy
    right, bottom = shape_hw[1] - left - pixels.shape[1], shape_hw[0] - top - pixels.shape[0]
    return np.pad(pixels, ((top, bottom), (left, right), (0, 0)), mode="edge")


def to_mask(levels: UInt8Array, *, shape_hw: tuple[int, ...], contract: ModelContract) -> UInt8Array:
    """Turn what the model gives into a mask of 0 and 255 at the image's own size, small regions dropped."""
    lowest = int(np.argmax(np.arange(256) / 255 >= contract.threshold))
    resized = resize(levels, shape_hw=(shape_hw[0], shape_hw[1]))
    mask = np.where(resized >= lowest, np.uint8(255), np.uint8(0))
    return drop_specks(mask, min_area_px=contract.min_area_px)


def encode_png(mask: UInt8Array) -> bytes:
    """Encode a mask as a grey PNG."""
    file = io.BytesIO()
    Image.fromarray(mask).save(file, "PNG")
    return file.getvalue()


def resize(array: UInt8Array, *, shape_hw: tuple[int, int]) -> UInt8Array:
    """Shrink by the mean over the covered area, then enlarge linearly; each axis takes the step it needs.

    Args:
        array: (H, W) or (H, W, C).
        shape_hw: height and width to bring it to.
    """
    deep = array.reshape(*array.shape[:2], -1)
    shrunk_hw = (min(shape_hw[0], deep.shape[0]), min(shape_hw[1], deep.shape[1]))
    if shrunk_hw != deep.shape[:2]:
        deep = shrink(deep, shape_hw=shrunk_hw)
    if shape_hw != shrunk_hw:
        deep = enlarge(deep, shape_hw=shape_hw)
    return np.ascontiguousarray(deep).reshape(*shape_hw, *array.shape[2:])


def shrink(array: UInt8Array, *, shape_hw: tuple[int, int]) -> UInt8Array:
    """Average the area that each pixel covers: OpenCV's INTER_AREA on (H, W, C)."""
    (height, width), (rows, columns) = array.shape[:2], shape_hw
    if height % rows == 0 and width % columns == 0:
        block = (height // rows, width // columns)
        return _average_blocks(array, block=block)
    x_from, x_share = _area_shares(width, columns)
    y_from, y_share = _area_shares(height, rows)
    narrow = np.empty((height, columns, array.shape[2]), dtype=np.float32)
    for top in range(0, height, _BAND):
        band = array[top : top + _BAND].astype(np.float32)
        total = np.zeros((len(band), *narrow.shape[1:]), dtype=np.float32)
        # Added in the order of OpenCV: sums of float32 depend on it.
        for source, share in zip(x_from, x_share, strict=True):
            total += band[:, source] * share[:, np.newaxis]
        narrow[top : top + _BAND] = total
    result = np.zeros((rows, *narrow.shape[1:]), dtype=np.float32)
    for source, share in zip(y_from, y_share, strict=True):
        result += narrow[source] * share[:, np.newaxis, np.newaxis]
    shrunk: UInt8Array = np.clip(np.rint(result), 0, 255).astype(np.uint8)
    return shrunk


def _average_blocks(array: UInt8Array, *, block: tuple[int, int]) -> UInt8Array:
    block_height, block_width = block
    rows, columns, channels = array.shape[0] // block_height, array.shape[1] // block_width, array.shape[2]
    sums = array.reshape(rows, block_height, columns, block_width, channels).sum(axis=(1, 3), dtype=np.int64)
    if block == (2, 2):
        means = (sums + 2) >> 2
    else:
        means = np.rint(sums.astype(np.float32) * np.float32(1 / (block_height * block_width)))
    averaged: UInt8Array = means.astype(np.uint8)
    return averaged


def _area_shares(size: int, target: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Return, as (T, target), which source pixels each target pixel covers and how much of the mean each one is."""
    scale = 1 / (target / size)
    covered: list[list[tuple[int, float]]] = []
    for position in range(target):
        start = position * scale
        end = start + scale
        extent = min(scale, size - start)
        last = min(int(np.floor(end)), size - 1)
        first = min(int(np.ceil(start)), last)
        shares: list[tuple[int, float]] = []
        if first - start > _LEAST_SHARE:
            shares.append((first - 1, (first - start) / extent))
        shares += [(source, 1 / extent) for source in range(first, last)]
        if end - last > _LEAST_SHARE:
            shares.append((last, min(end - last, 1.0, extent) / extent))
        covered.append(shares)
    most = max(map(len, covered))
    padded = [shares + [(0, 0.0)] * (most - len(shares)) for shares in covered]
    sources = np.array([[source for source, _ in shares] for shares in padded], dtype=np.int64)
    weights = np.array([[share for _, share in shares] for shares in padded], dtype=np.float32)
    return sources.T, weights.T


def enlarge(array: UInt8Array, *, shape_hw: tuple[int, int]) -> UInt8Array:
    """Interpolate linearly between pixel centres: OpenCV's INTER_LINEAR on (H, W, C)."""
    rows, columns = shape_hw
    left, right, left_weight, right_weight = _linear_weights(array.shape[1], columns, is_row=True)
    upper, lower, upper_weight, lower_weight = _linear_weights(array.shape[0], rows, is_row=False)
    wide = array.astype(np.int32)
    wide = wide[:, left] * left_weight[:, np.newaxis] + wide[:, right] * right_weight[:, np.newaxis]
    # OpenCV drops these bits before it multiplies again, so that 32 bits are enough.
    wide >>= 4
    result = np.empty((rows, columns, array.shape[2]), dtype=np.uint8)
    for top in range(0, rows, _BAND):
        band = np.s_[top : top + _BAND]
        above = (wide[upper[band]] * upper_weight[band, np.newaxis, np.newaxis]) >> 16
        below = (wide[lower[band]] * lower_weight[band, np.newaxis, np.newaxis]) >> 16
        result[band] = (above + below + 2) >> 2
    return result


def _linear_weights(size: int, target: int, *, is_row: bool) -> tuple[npt.NDArray[np.int32], ...]:
    """Return the two source pixels of each target pixel and their weights in 1/2048."""
    scale = 1 / (target / size)
    place = ((np.arange(target) + 0.5) * scale - 0.5).astype(np.float32)
    first = np.floor(place).astype(np.int32)
    share = place - first.astype(np.float32)
    if is_row:
        # Along a row OpenCV takes the outermost pixel whole; across rows it weighs it with itself, and rounds twice.
        share[(first < 0) | (first >= size - 1)] = 0
    second_weight = np.rint(share * np.float32(_ONE)).astype(np.int32)
    first_weight = np.rint((np.float32(1) - share) * np.float32(_ONE)).astype(np.int32)
    return np.clip(first, 0, size - 1), np.clip(first + 1, 0, size - 1), first_weight, second_weight


def drop_specks(mask: UInt8Array, *, min_area_px: int) -> UInt8Array:
    """Drop regions of fewer pixels; pixels that touch, corners included, are one region."""
    height, width = mask.shape
    if min_area_px <= 1 or not mask.any():
        return mask
    # Two columns of background behind each row keep its runs apart from those of the next.
    stride = width + 2
    flat = np.pad(mask != 0, ((0, 0), (0, 2))).ravel()
    bounds = np.flatnonzero(np.diff(flat.astype(np.int8), prepend=np.int8(0)))
    starts, ends = bounds[::2], bounds[1::2]
    # The runs of the next row that a run touches lie side by side in the list.
    first = np.searchsorted(ends, starts + stride, side="left")
    behind = np.searchsorted(starts, ends + stride, side="right")
    touched = np.maximum(behind - first, 0)
    upper = np.repeat(np.arange(len(starts)), touched)
    offsets = np.arange(len(upper)) - np.repeat(np.cumsum(touched) - touched, touched)
    region = _join(len(starts), upper, np.repeat(first, touched) + offsets)
    areas = np.bincount(region, weights=ends - starts, minlength=len(starts))
    is_kept = areas[region] >= min_area_px
    steps = np.zeros(height * stride + 1, dtype=np.int8)
    steps[starts[is_kept]] = 1
    steps[ends[is_kept]] = -1
    kept = np.cumsum(steps[:-1], dtype=np.int8).reshape(height, stride)[:, :width]
    return np.where(kept != 0, np.uint8(255), np.uint8(0))


def _join(count: int, one: npt.NDArray[np.int64], other: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return, for each of so many runs, the lowest run that it is connected with."""
    lowest = np.arange(count)
    while True:
        ones, others = lowest[one], lowest[other]
        if np.array_equal(ones, others):
            return lowest
        smaller = np.minimum(ones, others)
        np.minimum.at(lowest, ones, smaller)
        np.minimum.at(lowest, others, smaller)
        while not np.array_equal(shortened := lowest[lowest], lowest):
            lowest = shortened


if __name__ == "__main__":
    sys.exit(main())
