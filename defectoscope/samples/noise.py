"""Smooth random fields: the raw material of every texture and stain; knows nothing of materials or defects.

Every field is float32 of shape (H, W), drawn from the generator it is given and from nothing else.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt

Field = npt.NDArray[np.float32]
"""A float32 array of shape (H, W), or (H, W, 3) where it holds colours."""


def white_noise(rng: np.random.Generator, *, shape_hw: tuple[int, int]) -> Field:
    """Draw independent values of mean 0 and standard deviation 1, one for each pixel."""
    return rng.standard_normal(shape_hw, dtype=np.float32)


def value_noise(rng: np.random.Generator, *, shape_hw: tuple[int, int], cell_wh: tuple[float, float]) -> Field:
    """Draw noise whose blobs are about one cell large.

    Args:
        rng: the only source of chance.
        shape_hw: height and width of the field in pixels.
        cell_wh: width and height of a cell in pixels; unequal sides draw streaks.

    Returns:
        float32 (H, W), mean about 0, standard deviation about 1.
    """
    height, width = shape_hw
    grid_wh = (max(2, math.ceil(width / cell_wh[0]) + 1), max(2, math.ceil(height / cell_wh[1]) + 1))
    grid = rng.standard_normal((grid_wh[1], grid_wh[0]), dtype=np.float32)
    # Interpolating between grid points loses about a third of their spread; the factor gives it back.
    return np.asarray(cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC), dtype=np.float32) * np.float32(
        1.4
    )


def fractal_noise(
    rng: np.random.Generator, *, shape_hw: tuple[int, int], coarsest_px: float, octaves: int, gain: float = 0.55
) -> Field:
    """Add octaves of value noise, each half as large and ``gain`` times as strong as the one before.

    Args:
        rng: the only source of chance.
        shape_hw: height and width of the field in pixels.
        coarsest_px: cell size of the first octave in pixels.
        octaves: how many are added.
        gain: strength of an octave relative to the coarser one.

    Returns:
        float32 (H, W), mean about 0, standard deviation about 1.
    """
    field = np.zeros(shape_hw, np.float32)
    power = 0.0
    for octave in range(octaves):
        cell_px = max(1.0, coarsest_px / 2**octave)
        field += np.float32(gain**octave) * value_noise(rng, shape_hw=shape_hw, cell_wh=(cell_px, cell_px))
        power += gain ** (2 * octave)
    return field / np.float32(math.sqrt(power))


def streaks(rng: np.random.Generator, *, shape_hw: tuple[int, int], angle_rad: float) -> Field:
    """Draw fine brush streaks of several lengths in one direction.

    Args:
        rng: the only source of chance.
        shape_hw: height and width of the field in pixels.
        angle_rad: direction of the streaks, counted from the x axis towards the y axis (down).

    Returns:
        float32 (H, W), mean about 0, standard deviation about 1.
    """
    height, width = shape_hw
    side = math.ceil(math.hypot(height, width)) + 2
    field = np.zeros((side, side), np.float32)
    for length_px, breadth_px, strength in (
        (side / 1.5, 1.3, 0.6),
        (90.0, 1.2, 0.55),
        (30.0, 1.0, 0.4),
        (160.0, 5, 0.4),
    ):
        field += np.float32(strength) * value_noise(rng, shape_hw=(side, side), cell_wh=(length_px, breadth_px))
    # The canvas is square and as long as the diagonal, so that turning it leaves no empty corner.
    turn = cv2.getRotationMatrix2D((side / 2, side / 2), -math.degrees(angle_rad), 1.0)
    turn[:, 2] -= np.array(((side - width) / 2, (side - height) / 2))
    turned = cv2.warpAffine(field, turn, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    return np.asarray(turned, dtype=np.float32)


def coordinates(shape_hw: tuple[int, int]) -> tuple[Field, Field]:
    """Return x and y of every pixel, each float32 and open for broadcasting: (1, W) and (H, 1)."""
    height, width = shape_hw
    return np.arange(width, dtype=np.float32)[None, :], np.arange(height, dtype=np.float32)[:, None]


def mottle(colour: npt.ArrayLike, tones: Field) -> Field:
    """Spread one colour over the tones: float32 (H, W, 3), 1.0 in ``tones`` gives the colour itself."""
    return tones[..., None] * np.asarray(colour, dtype=np.float32)


def between(rng: np.random.Generator, low: float, high: float) -> float:
    """Draw a plain float between two bounds."""
    return float(rng.uniform(low, high))


def happens(rng: np.random.Generator, probability: float) -> bool:
    """Draw whether something with this probability happens."""
    return bool(rng.random() < probability)
