"""Three sound materials: brushed metal, rock and concrete, each with the harmless marks that belong to it.

Machining lines, dust, grain boundaries, veins, joints and small pores are part of the material: they tempt a model to a
false call and are never labelled. No defect is drawn here, and no light: that is the camera's part in `picture.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final

import cv2
import numpy as np

from defectoscope.samples.noise import (
    Field,
    between,
    coordinates,
    fractal_noise,
    happens,
    mottle,
    streaks,
    value_noise,
    white_noise,
)

Texture = Callable[[np.random.Generator, tuple[int, int]], Field]
"""Draws the reflectance of a sound surface: float32 (H, W, 3) RGB, about 0.15 to 0.95."""

_METAL_TINTS: Final = ((1.0, 1.0, 1.0), (0.97, 1.0, 1.04), (0.96, 0.99, 1.05), (1.04, 1.0, 0.95), (1.1, 1.0, 0.8))
_ROCK_TINTS: Final = ((1.0, 1.0, 1.0), (1.08, 1.0, 0.9), (1.12, 0.98, 0.92), (0.96, 1.0, 1.02), (0.98, 1.02, 0.94))
_CONCRETE_TINTS: Final = ((1.0, 0.99, 0.96), (1.02, 1.0, 0.94), (0.98, 1.0, 1.0), (1.0, 1.0, 1.0))


def draw_brushed_metal(rng: np.random.Generator, shape_hw: tuple[int, int]) -> Field:
    """Draw metal brushed in one direction, with its specular band, machining lines and dust.

    Args:
        rng: the only source of chance.
        shape_hw: height and width in pixels.

    Returns:
        Reflectance, float32 (H, W, 3) RGB.
    """
    angle_rad = float(rng.choice((0.0, math.pi / 2))) + between(rng, -0.12, 0.12)
    if happens(rng, 0.3):
        angle_rad = between(rng, 0.0, math.pi)
    tones = between(rng, 0.45, 0.66) + between(rng, 0.022, 0.045) * streaks(rng, shape_hw=shape_hw, angle_rad=angle_rad)
    # Brushed metal reflects in a band across the brush direction: bright along a line, darker away from it.
    along = _along(shape_hw, angle_rad)
    centre, breadth = between(rng, -0.35, 0.35), between(rng, 0.2, 0.5)
    tones += between(rng, 0.08, 0.24) * np.exp(-(((along - centre) / breadth) ** 2)) - 0.05
    if happens(rng, 0.5):
        tones += _machining_lines(rng, shape_hw)
    tones += 0.012 * white_noise(rng, shape_hw=shape_hw)
    surface = mottle(_METAL_TINTS[int(rng.integers(len(_METAL_TINTS)))], tones)
    return _with_dust(surface, rng, specks_per_megapixel=between(rng, 60, 400))


def draw_rock(rng: np.random.Generator, shape_hw: tuple[int, int]) -> Field:
    """Draw rock: several octaves of tone, mineral grains with their boundaries, sometimes a faint vein.

    Args:
        rng: the only source of chance.
        shape_hw: height and width in pixels.

    Returns:
        Reflectance, float32 (H, W, 3) RGB.
    """
    base = between(rng, 0.42, 0.62)
    tones = base + between(rng, 0.03, 0.055) * fractal_noise(
        rng, shape_hw=shape_hw, coarsest_px=between(rng, 40, 110), octaves=6, gain=0.62
    )
    grains, boundaries = _grains(
        rng, shape_hw, grain_px=between(rng, 5, 11) * math.sqrt(shape_hw[0] * shape_hw[1]) / 384
    )
    tones += between(rng, 0.03, 0.075) * grains - between(rng, 0.02, 0.06) * boundaries
    if happens(rng, 0.4):
        vein = np.abs(fractal_noise(rng, shape_hw=shape_hw, coarsest_px=between(rng, 120, 220), octaves=4))
        tones += between(rng, 0.05, 0.1) * np.clip(1 - vein / 0.035, 0, 1)
    warmth = 0.012 * value_noise(rng, shape_hw=shape_hw, cell_wh=(60, 60)) + 0.016 * grains
    surface = mottle(_ROCK_TINTS[int(rng.integers(len(_ROCK_TINTS)))], tones)
    surface[..., 0] += warmth
    surface[..., 2] -= warmth
    surface += (0.022 * white_noise(rng, shape_hw=shape_hw))[..., None]
    return np.clip(surface, 0.12, 0.95)


def draw_concrete(rng: np.random.Generator, shape_hw: tuple[int, int]) -> Field:
    """Draw concrete: sand speckles, clouds, trowel strokes and small pores, sometimes a formwork joint.

    Args:
        rng: the only source of chance.
        shape_hw: height and width in pixels.

    Returns:
        Reflectance, float32 (H, W, 3) RGB.
    """
    tones = between(rng, 0.5, 0.7) + between(rng, 0.012, 0.03) * fractal_noise(
        rng, shape_hw=shape_hw, coarsest_px=between(rng, 90, 200), octaves=5
    )
    tones += between(rng, 0.012, 0.025) * value_noise(rng, shape_hw=shape_hw, cell_wh=(2.2, 2.2))
    tones += between(rng, 0.015, 0.03) * white_noise(rng, shape_hw=shape_hw)
    angle_rad = between(rng, 0.0, math.pi)
    # A trowel leaves broad strokes: the streaks of brushing, blurred until only their swing is left.
    swing = cv2.GaussianBlur(streaks(rng, shape_hw=shape_hw, angle_rad=angle_rad), (0, 0), 5.0)
    tones += between(rng, 0.02, 0.06) * swing + between(rng, -0.06, 0.06) * _along(shape_hw, angle_rad)
    if happens(rng, 0.25):
        across = _along(shape_hw, angle_rad + math.pi / 2) - between(rng, -0.3, 0.3)
        tones -= between(rng, 0.03, 0.06) * np.exp(-((across * max(shape_hw) / 1.6) ** 2))
    surface = mottle(_CONCRETE_TINTS[int(rng.integers(len(_CONCRETE_TINTS)))], tones)
    return _with_pores(surface, rng, pores_per_megapixel=between(rng, 80, 450))


TEXTURES: Final[Mapping[str, Texture]] = {
    "metal": draw_brushed_metal,
    "rock": draw_rock,
    "concrete": draw_concrete,
}
"""Every material by its name."""


def _along(shape_hw: tuple[int, int], angle_rad: float) -> Field:
    """Return the position of every pixel along a direction, 0 at the centre, in units of the longer side."""
    x, y = coordinates(shape_hw)
    height, width = shape_hw
    along = (x - width / 2) * math.cos(angle_rad) + (y - height / 2) * math.sin(angle_rad)
    return np.asarray(along / max(shape_hw), dtype=np.float32)


def _machining_lines(rng: np.random.Generator, shape_hw: tuple[int, int]) -> Field:
    """Draw the faint, evenly spaced arcs a milling tool leaves."""
    x, y = coordinates(shape_hw)
    reach = max(shape_hw) * between(rng, 0.8, 4.0)
    heading = between(rng, 0.0, 2 * math.pi)
    centre_x = shape_hw[1] / 2 + reach * math.cos(heading)
    centre_y = shape_hw[0] / 2 + reach * math.sin(heading)
    radius = np.sqrt((x - centre_x) ** 2 + (y - centre_y) ** 2)
    wave = np.cos(radius * np.float32(2 * math.pi / between(rng, 9, 26)))
    return np.asarray(between(rng, 0.012, 0.03) * np.clip(wave * 3 - 2, -0.5, 1), dtype=np.float32)


def _with_dust(surface: Field, rng: np.random.Generator, *, specks_per_megapixel: float) -> Field:
    """Scatter specks of one or two pixels, lighter or darker than the ground."""
    height, width = surface.shape[:2]
    count = int(rng.poisson(specks_per_megapixel * height * width / 1e6))
    strength = np.zeros((height, width), np.float32)
    rows, columns = rng.integers(0, height, count), rng.integers(0, width, count)
    strength[rows, columns] = rng.uniform(0.25, 0.6, count) * rng.choice((-1, 1), count)
    blurred = cv2.GaussianBlur(strength, (3, 3), 0.7)
    return np.asarray(np.clip(surface + np.asarray(blurred)[..., None], 0.12, 0.98), dtype=np.float32)


def _grains(rng: np.random.Generator, shape_hw: tuple[int, int], *, grain_px: float) -> tuple[Field, Field]:
    """Draw grains as the cells nearest to scattered points.

    Returns:
        The tone of each grain (mean 0, standard deviation about 1) and where grains meet (0 to 1), both float32 (H, W).
    """
    height, width = shape_hw
    count = max(8, int(height * width / grain_px**2))
    empty = np.full(shape_hw, 255, np.uint8)
    empty[rng.integers(0, height, count), rng.integers(0, width, count)] = 0
    _, cells = cv2.distanceTransformWithLabels(empty, cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL)
    # Straight cell edges look like a mosaic; shifting where each pixel looks frays them.
    x, y = coordinates(shape_hw)
    shift_x, shift_y = (
        grain_px * 0.3 * fractal_noise(rng, shape_hw=shape_hw, coarsest_px=grain_px * 0.7, octaves=3) for _ in range(2)
    )
    columns = np.clip(np.rint(x + shift_x), 0, width - 1).astype(np.intp)
    rows = np.clip(np.rint(y + shift_y), 0, height - 1).astype(np.intp)
    cells = cells[rows, columns]
    # Most grains differ little; a few minerals (mica, quartz) stand out.
    tones = 0.75 * rng.standard_normal(count + 1, dtype=np.float32)
    tones += rng.choice(np.array((0, 1.6, -1.8), np.float32), count + 1, p=(0.88, 0.06, 0.06))
    boundaries = np.zeros(shape_hw, np.float32)
    boundaries[:, 1:] += cells[:, 1:] != cells[:, :-1]
    boundaries[1:, :] += cells[1:, :] != cells[:-1, :]
    grains = np.asarray(cv2.GaussianBlur(tones[cells], (3, 3), 0.8), dtype=np.float32)
    softened = np.asarray(cv2.GaussianBlur(np.minimum(boundaries, 1), (3, 3), 0.6), dtype=np.float32)
    return grains, softened


def _with_pores(surface: Field, rng: np.random.Generator, *, pores_per_megapixel: float) -> Field:
    """Scatter the small air holes of sound concrete, at most 2.5 pixels in radius: dark, with a lit lower edge."""
    height, width = surface.shape[:2]
    dark, lit = np.zeros((height, width), np.float32), np.zeros((height, width), np.float32)
    for _ in range(int(rng.poisson(pores_per_megapixel * height * width / 1e6))):
        x, y = int(rng.integers(0, width)), int(rng.integers(0, height))
        radius_px = between(rng, 0.8, 2.5)
        strength = between(rng, 0.3, 0.75)
        # Coordinates are in sixteenths of a pixel, so that pores of all sizes stay round.
        centre, reach = (x * 16, y * 16), int(radius_px * 16)
        cv2.circle(lit, (centre[0] + 10, centre[1] + 10), reach, strength * 0.3, -1, cv2.LINE_8, 4)
        cv2.circle(dark, centre, reach, strength, -1, cv2.LINE_8, 4)
    shade = np.asarray(cv2.GaussianBlur(lit * (dark == 0) - dark, (3, 3), 0.6), dtype=np.float32)
    return np.asarray(np.clip(surface * (1 + 0.6 * shade[..., None]), 0.12, 0.95), dtype=np.float32)
