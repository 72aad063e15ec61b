"""Finds images that look the same: a 64-bit perceptual hash, and the pairs of hashes that are too near for chance.

The hash is the DCT hash of the original pHash library (Zauner, "Implementation and Benchmarking of Perceptual Image
Hash Functions", 2010): grey, 32 x 32 pixels by area, DCT, the 8 x 8 lowest frequencies without the first row and the
first column, one bit each for above the median. It sees the large shapes of a picture. To it a texture without any is
only noise, so flat images have no hash. And pictures by one fixed camera look the same to it, whatever parts they show:
a crowd of more than `LARGEST_CROWD` images is therefore taken apart by smaller distances, and its images are left alone
where even equal hashes make a crowd. Whoever has such pictures names their parts.

Measured on 470 pictures of 99 magnetic tiles, 71 pictures of 7 screws and places by one fixed camera, and 150 drawn
samples. Copies of each: JPEG of quality 90 and 50, 0.9 and 0.5 of the size, 10 % brighter, 20 levels brighter and
darker. No image was flat.

========  ============  =======================  ====================  =============  ===========================
distance  copies found  tiles: pairs of one      tiles: pairs of two   samples:       fixed camera: largest group
at most                 tile, of 1179, joined    tiles joined          pairs joined   with the guard, without it
========  ============  =======================  ====================  =============  ===========================
0         72.3 %        29                       0                     0              2 of 71, 2 of 71
2         96.4 %        109                      0                     0              5, 16
4         99.1 %        203                      0                     0              5, 52
6         99.7 %        337                      0                     0              5, 62
8         99.9 %        449                      1                     0              5, 63
10        100 %         512                      4                     0              5, 66
========  ============  =======================  ====================  =============  ===========================

The largest group of tiles has 12 images at each distance from 4 to 10, all of one tile: it sets `LARGEST_CROWD`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
import numpy.typing as npt

from defectoscope.segmentation import UInt8Array

#: Bits in which the hashes of near-duplicates may differ.
MAX_DISTANCE = 6
#: The distances that are tried on a crowd, one after the other. Half of the bits are set, so distances are even.
_DISTANCES = (MAX_DISTANCE, 4, 2, 0)
#: A part under several exposures has no more images; a fixed camera soon has.
LARGEST_CROWD = 12
#: Width to height of near-duplicates differ by this factor at most.
_LARGEST_STRETCH = 1.05
#: Hash of an image without large shapes. No other has it: half of the bits of theirs are set.
FLAT = 0

_SIDE_PX = 32
_FREQUENCIES = slice(1, 9)
#: Standard deviation of the 64 coefficients, in grey levels times 32, below which JPEG noise turns bits over.
_LEAST_STRUCTURE = 4.0
_BITS = 64
_BLOCK = 1024

_Hashes = npt.NDArray[np.uint64]
_Indices = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Alike:
    """What looks alike among some images, by their positions.

    Attributes:
        pairs: of near-duplicates, the smaller position first.
        crowded: images that look like too many others to tell which of them they are near-duplicates of.
    """

    pairs: list[tuple[int, int]]
    crowded: frozenset[int]


def perceptual_hash(pixels: UInt8Array) -> int:
    """Return the hash of an image.

    Args:
        pixels: (H, W, 3) uint8 RGB, upright.

    Returns:
        64 bits as a signed integer; `FLAT` where the image has no large shapes.
    """
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (_SIDE_PX, _SIDE_PX), interpolation=cv2.INTER_AREA).astype(np.float32)
    low = cv2.dct(small)[_FREQUENCIES, _FREQUENCIES].ravel()
    if float(low.std()) < _LEAST_STRUCTURE:
        return FLAT
    return int.from_bytes(np.packbits(low > np.median(low)).tobytes(), signed=True)


def distance(first: int, second: int) -> int:
    """Return in how many bits two hashes differ, 0 to 64."""
    return int(((first ^ second) & (2**_BITS - 1)).bit_count())


def find_alike(hashes: Sequence[int | None], sizes_wh: Sequence[tuple[int, int]]) -> Alike:
    """Find near-duplicates among images.

    Args:
        hashes: of each image; one that is None or `FLAT` is like no other.
        sizes_wh: of each image, in pixels: copies have about the same shape.
    """
    told = np.array([at for at, value in enumerate(hashes) if value not in (None, FLAT)], dtype=np.intp)
    values = np.array([hashes[at] for at in told], dtype=np.int64).view(np.uint64)
    shapes = np.log(np.array([sizes_wh[at][0] / sizes_wh[at][1] for at in told], dtype=np.float64))
    pairs: list[tuple[int, int]] = []
    # Images of a crowd at one distance are looked at again at the next smaller one, all others are done.
    left = np.arange(len(told))
    for most in _DISTANCES:
        near, crowded = _near_pairs(values[left], shapes[left], most=most)
        pairs += [(int(told[left[i]]), int(told[left[j]])) for i, j in near]
        left = left[crowded]
    return Alike(pairs=sorted(pairs), crowded=frozenset(int(told[at]) for at in left))


def _near_pairs(
    hashes: _Hashes, shapes: npt.NDArray[np.float64], *, most: int
) -> tuple[list[tuple[int, int]], _Indices]:
    """Return the pairs at a distance that are in no crowd, and the positions of the images that are in one."""
    neighbours = np.zeros(len(hashes), dtype=np.int64)
    found: list[npt.NDArray[np.intp]] = []
    for rows, columns in _candidates(hashes, most=most, neighbours=neighbours, shapes=shapes):
        found.append(np.stack([rows, columns], axis=1))
    edges = np.concatenate(found) if found else np.empty((0, 2), dtype=np.intp)
    # An image of so many neighbours is in a crowd, whatever else it is near to; its pairs were not all kept.
    lone = neighbours < LARGEST_CROWD
    members = Components(len(hashes))
    for i, j in edges[lone[edges].any(axis=1)].tolist():
        members.join(i, j)
    roots = np.array([members.root(at) for at in range(len(hashes))], dtype=np.intp)
    is_crowd = np.bincount(roots, minlength=len(hashes)) > LARGEST_CROWD
    is_crowd[roots[~lone]] = True
    in_crowd = is_crowd[roots]
    return [(i, j) for i, j in edges[~in_crowd[edges].any(axis=1)].tolist()], np.flatnonzero(in_crowd)


def _candidates(
    hashes: _Hashes, *, most: int, neighbours: npt.NDArray[np.int64], shapes: npt.NDArray[np.float64]
) -> Iterator[tuple[_Indices, _Indices]]:
    """Yield each near pair once and count neighbours, but leave out the pairs of images that have too many.

    Of ``most`` + 1 bands of bits, two hashes that differ in ``most`` bits have one in common: only those that share a
    band are compared.
    """
    masks = _band_masks(most + 1)
    for number, mask in enumerate(masks):
        band = hashes & mask
        order = np.argsort(band, kind="stable")
        ends = np.flatnonzero(np.diff(band[order])) + 1
        for bucket in (bucket for bucket in np.split(order, ends) if len(bucket) > 1):
            for rows, columns in _blocks(bucket, neighbours):
                at_row, at_column = np.nonzero(np.bitwise_count(hashes[rows, np.newaxis] ^ hashes[columns]) <= most)
                first, second = rows[at_row], columns[at_column]
                real = np.abs(shapes[first] - shapes[second]) <= np.log(_LARGEST_STRETCH)
                # A pair that shares an earlier band was met there.
                for earlier in masks[:number]:
                    real &= ((hashes[first] ^ hashes[second]) & earlier) != 0
                if rows is columns:
                    real &= at_row < at_column
                first, second = first[real], second[real]
                np.add.at(neighbours, first, 1)
                np.add.at(neighbours, second, 1)
                few = (neighbours[first] < LARGEST_CROWD) | (neighbours[second] < LARGEST_CROWD)
                yield first[few], second[few]


def _band_masks(count: int) -> list[np.uint64]:
    """Cut 64 bits into bands of about equal width."""
    edges = [_BITS * number // count for number in range(count + 1)]
    return [np.uint64((1 << high) - (1 << low)) for low, high in pairwise(edges)]


def _blocks(bucket: _Indices, neighbours: npt.NDArray[np.int64]) -> Iterator[tuple[_Indices, _Indices]]:
    """Yield what is to be compared in a bucket: itself in blocks, without what is known to be in a crowd already."""
    blocks = [bucket[start : start + _BLOCK] for start in range(0, len(bucket), _BLOCK)]
    # Each block with itself first: after that, most images of a crowd are known.
    for block in blocks:
        is_few = neighbours[block] < LARGEST_CROWD
        few = block[is_few]
        if len(few):
            yield few, few
            yield few, block[~is_few]
    for number, rows in enumerate(blocks):
        for columns in blocks[number + 1 :]:
            is_few = neighbours[rows] < LARGEST_CROWD
            if is_few.any():
                yield rows[is_few], columns
            few_columns = columns[neighbours[columns] < LARGEST_CROWD]
            if len(few_columns) and not is_few.all():
                yield rows[~is_few], few_columns


class Components:
    """Connected components of numbered things (union-find); each is named by its smallest number."""

    def __init__(self, count: int) -> None:
        self._parent = list(range(count))

    def root(self, at: int) -> int:
        """Return the name of the component that a thing is in."""
        parent = self._parent
        while parent[at] != at:
            parent[at] = parent[parent[at]]
            at = parent[at]
        return at

    def join(self, first: int, second: int) -> None:
        """Make one component of two."""
        low, high = sorted((self.root(first), self.root(second)))
        self._parent[high] = low
