"""Four kinds of defect: scratches, pits, cracks and stains, drawn into a surface together with their exact extent.

A defect is geometry first: its extent is what was drawn, never a threshold of the finished picture. Outside its extent
(and the soft edge of a pixel or two around it) the surface stays as it was.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from defectoscope.samples.noise import Field, between, coordinates, fractal_noise, happens, value_noise

FAINTEST_CHANGE: Final = 0.12
"""A defect changes the reflectance within its extent by at least this much on average; below it people miss it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """What one defect does to a surface, before it is painted.

    Attributes:
        coverage: float32 (H, W), 0 to 1, how much of a pixel the defect takes up; its extent is 0.5 and above.
        colour: RGB reflectance of the defect's material, 0 to 1.
        opacity: how much of that material hides the ground, float32 (H, W) or a number, 0 to 1.
        soaks_in: the material tints the ground like a filter, so that its grain stays visible, and does not cover it.
        relief_px: float32 (H, W), height of the surface in pixels (negative in a hollow), or None when it is flat.
    """

    coverage: Field
    colour: tuple[float, float, float]
    opacity: Field | float
    soaks_in: bool = False
    relief_px: Field | None = None


Draw = Callable[[np.random.Generator, Field, float], Mark]
"""Draws a defect for a surface at a scale (1.0 for a picture of 384 x 384 pixels)."""


def paint(surface: Field, mark: Mark, *, light_xy: tuple[float, float]) -> tuple[Field, npt.NDArray[np.bool_]]:
    """Paint a defect into a surface.

    Args:
        surface: reflectance, float32 (H, W, 3) RGB; it is left as it is.
        mark: the defect.
        light_xy: unit vector from the surface towards the light, in the picture plane.

    Returns:
        The new reflectance and the extent of the defect, bool (H, W).
    """
    weight = (mark.coverage * mark.opacity)[..., None]
    colour = np.asarray(mark.colour, dtype=np.float32)
    change = ((surface * colour if mark.soaks_in else colour) - surface) * weight
    if mark.relief_px is not None:
        slope_x = np.asarray(cv2.Sobel(mark.relief_px, cv2.CV_32F, 1, 0, scale=0.125), dtype=np.float32)
        slope_y = np.asarray(cv2.Sobel(mark.relief_px, cv2.CV_32F, 0, 1, scale=0.125), dtype=np.float32)
        # A slope that falls towards the light is lit, one that falls away from it lies in shade.
        lit = np.clip(-(slope_x * light_xy[0] + slope_y * light_xy[1]), -1, 1)
        change += (np.float32(0.35) * lit * mark.coverage)[..., None] * (surface + 0.15)
    extent = mark.coverage >= np.float32(0.5)
    if extent.any():
        seen = float(np.abs(change[extent].mean(axis=0)).mean())
        change *= np.float32(min(3.0, max(1.0, FAINTEST_CHANGE / max(seen, 1e-6))))
    return np.clip(surface + change, 0.02, 1.0), extent


def draw_scratch(rng: np.random.Generator, surface: Field, scale: float) -> Mark:
    """Draw one to three long, nearly straight grooves, brighter or darker than the ground."""
    shape_hw = (surface.shape[0], surface.shape[1])
    heading_rad = between(rng, 0.0, math.pi)
    inside = np.full(shape_hw, -1e3, np.float32)
    for _ in range(int(rng.choice((1, 2, 3), p=(0.5, 0.35, 0.15)))):
        length_px = between(rng, 0.4, 0.95) * min(shape_hw)
        path = _wander(
            rng,
            start_xy=_starting_point(rng, shape_hw, heading_rad, length_px),
            heading_rad=heading_rad + between(rng, -0.3, 0.3),
            length_px=length_px,
            wobble_rad=0.012,
            bend_rad=between(rng, -0.4, 0.4),
        )
        taper = np.sin(np.linspace(0.12, 0.93, len(path)) * math.pi) ** 0.4
        half_widths_px = between(rng, 2.0, 3.8) * scale * taper
        inside = np.maximum(inside, _stroke(shape_hw, path, half_widths_px))
    inside += np.float32(0.25) * value_noise(rng, shape_hw=shape_hw, cell_wh=(6, 6))
    ground = _mean_tone(surface, inside > 0)
    tone = ground - between(rng, 0.22, 0.36)
    # A dark ground leaves room only for a brighter scratch; on a bright one both occur.
    if happens(rng, float(np.interp(ground, (0.45, 0.7), (1.0, 0.35)))):
        tone = ground + between(rng, 0.22, 0.36)
    tone = min(max(tone, 0.06), 0.98)
    return Mark(
        coverage=_coverage(inside),
        colour=(tone, tone, tone),
        opacity=np.clip(
            between(rng, 0.72, 0.9) + 0.09 * value_noise(rng, shape_hw=shape_hw, cell_wh=(14, 14)), 0.5, 0.98
        ),
        relief_px=-np.clip(inside, 0, 4 * scale) * np.float32(0.8),
    )


def draw_pits(rng: np.random.Generator, surface: Field, scale: float) -> Mark:
    """Draw one to six corroded hollows: dark inside, with a lit and a shaded rim."""
    height, width = surface.shape[:2]
    x, y = coordinates((height, width))
    inside = np.full((height, width), -1e3, np.float32)
    relief = np.zeros((height, width), np.float32)
    largest_px = between(rng, 13, 30) * scale
    for _ in range(int(rng.integers(1, 7))):
        radius_px = max(6.5 * scale, largest_px * between(rng, 0.4, 1.0))
        across, down = between(rng, 0.06, 0.94) * width, between(rng, 0.06, 0.94) * height
        stretch = between(rng, 0.75, 1.3)
        offset_x, offset_y = (x - across) * stretch, (y - down) / stretch
        bearing = np.arctan2(offset_y, offset_x)
        edge = np.ones_like(bearing)
        for lobe in range(2, 7):
            edge += between(rng, 0.02, 0.22) / lobe * np.cos(lobe * bearing + between(rng, 0.0, 2 * math.pi))
        depth = radius_px * edge - np.sqrt(offset_x**2 + offset_y**2)
        inside = np.maximum(inside, depth)
        wall_px = max(2.5, 0.45 * radius_px)
        # A smooth step: steep near the rim, flat at the bottom.
        fall = np.clip(depth / wall_px, 0, 1)
        relief = np.minimum(relief, -wall_px * (1 - (1 - fall) ** 2))
    roughness = fractal_noise(rng, shape_hw=(height, width), coarsest_px=10 * scale, octaves=3)
    inside += roughness * np.float32(0.8 * scale)
    tone = between(rng, 0.06, 0.2)
    warmth = between(rng, 1.0, 1.35)
    shadow = np.clip(inside / np.float32(0.5 * largest_px), 0, 1)
    return Mark(
        coverage=_coverage(inside),
        colour=(tone * warmth, tone, tone / warmth),
        opacity=np.clip(0.45 + 0.4 * shadow + 0.06 * roughness, 0.3, 0.92),
        relief_px=relief + roughness * shadow * np.float32(0.5),
    )


def draw_crack(rng: np.random.Generator, surface: Field, scale: float) -> Mark:
    """Draw a dark, jagged crack that thins out and branches."""
    shape_hw = (surface.shape[0], surface.shape[1])
    heading_rad = between(rng, 0.0, 2 * math.pi)
    length_px = between(rng, 0.6, 1.15) * min(shape_hw)
    half_width_px = between(rng, 2.3, 4.2) * scale
    trunk = _wander(
        rng,
        start_xy=_starting_point(rng, shape_hw, heading_rad, length_px),
        heading_rad=heading_rad,
        length_px=length_px,
        wobble_rad=0.3,
        bend_rad=between(rng, -0.5, 0.5),
    )
    inside = _stroke(shape_hw, trunk, np.linspace(half_width_px, 0.5 * half_width_px, len(trunk)))
    for _ in range(int(rng.integers(1, 5))):
        fork = int(rng.integers(len(trunk) // 6, len(trunk) - 1))
        branch = _wander(
            rng,
            start_xy=(float(trunk[fork, 0]), float(trunk[fork, 1])),
            heading_rad=heading_rad + float(rng.choice((-1, 1))) * between(rng, 0.5, 1.1),
            length_px=length_px * between(rng, 0.15, 0.45),
            wobble_rad=0.32,
            bend_rad=0.0,
        )
        breadth = half_width_px * between(rng, 0.55, 0.8)
        inside = np.maximum(inside, _stroke(shape_hw, branch, np.linspace(breadth, 0.5 * breadth, len(branch))))
    inside += np.float32(0.55) * fractal_noise(rng, shape_hw=shape_hw, coarsest_px=7 * scale, octaves=3)
    tone = between(rng, 0.04, 0.16)
    return Mark(
        coverage=_coverage(inside),
        colour=(tone * 1.05, tone, tone * 0.95),
        opacity=np.clip(0.6 + 0.16 * inside / np.float32(scale), 0.55, 0.95),
        relief_px=-np.clip(inside, 0, 5 * scale) * np.float32(0.6),
    )


def draw_stain(rng: np.random.Generator, surface: Field, scale: float) -> Mark:
    """Draw a blotch of rust, oil or lime with a soft edge and a darker tide line."""
    height, width = surface.shape[:2]
    x, y = coordinates((height, width))
    inside = np.full((height, width), -1e3, np.float32)
    ragged = fractal_noise(rng, shape_hw=(height, width), coarsest_px=between(rng, 36, 70) * scale, octaves=4)
    for _ in range(int(rng.choice((1, 2), p=(0.7, 0.3)))):
        radius_px = between(rng, 30, 72) * scale
        across, down = between(rng, 0.12, 0.88) * width, between(rng, 0.12, 0.88) * height
        turn_rad, stretch = between(rng, 0.0, math.pi), between(rng, 0.7, 1.4)
        long = ((x - across) * math.cos(turn_rad) + (y - down) * math.sin(turn_rad)) * stretch
        short = ((y - down) * math.cos(turn_rad) - (x - across) * math.sin(turn_rad)) / stretch
        reach = np.sqrt(long**2 + short**2)
        # The raggedness fades with the distance, or it would scatter islands over the whole picture.
        sway = np.float32(0.24 * radius_px) * ragged * np.clip(1.8 - reach / radius_px, 0, 1)
        inside = np.maximum(inside, radius_px - reach + sway)
    soaks_in = _mean_tone(surface, inside > 0) > _DARK_GROUND and happens(rng, 0.8)
    stains = _SOAKING_STAINS if soaks_in else _COVERING_STAINS
    clouds = fractal_noise(rng, shape_hw=(height, width), coarsest_px=30 * scale, octaves=5)
    # Where a puddle dries last, it leaves most: a line along the edge.
    tide_line = np.exp(-(((inside - 4 * scale) / np.float32(3.5 * scale)) ** 2))
    strength = between(rng, 0.62, 0.85) if soaks_in else between(rng, 0.45, 0.7)
    return Mark(
        coverage=_coverage(inside, soft_px=between(rng, 2.5, 4.5)),
        colour=stains[int(rng.integers(len(stains)))],
        opacity=np.clip(strength + 0.11 * clouds + between(rng, 0.05, 0.25) * tide_line, 0.3, 1.0),
        soaks_in=soaks_in,
    )


DEFECTS: Final[Mapping[str, Draw]] = {
    "scratch": draw_scratch,
    "pit": draw_pits,
    "crack": draw_crack,
    "stain": draw_stain,
}
"""Every kind of defect by its name."""

_DARK_GROUND: Final = 0.38
"""Below this reflectance a soaking stain would hardly show."""

_SOAKING_STAINS: Final = ((0.78, 0.47, 0.24), (0.68, 0.42, 0.26), (0.36, 0.32, 0.26), (0.4, 0.4, 0.39))
"""Fresh rust, old rust, oil and soot: the share of the light they let through."""

_COVERING_STAINS: Final = ((0.95, 0.94, 0.9), (0.97, 0.97, 0.98))
"""Lime and salt; they show on a dark ground as well."""


def _wander(
    rng: np.random.Generator,
    *,
    start_xy: tuple[float, float],
    heading_rad: float,
    length_px: float,
    wobble_rad: float,
    bend_rad: float,
) -> npt.NDArray[np.float64]:
    """Walk in short steps whose heading sways around a bend; return the points, float64 (N, 2) as x and y."""
    step_px = 4.0
    steps = max(8, int(length_px / step_px))
    sway = np.zeros(steps)
    for step in range(1, steps):
        # The sway is pulled back to 0, so that the path keeps its course and does not curl up.
        sway[step] = 0.86 * sway[step - 1] + float(rng.normal(0.0, wobble_rad))
    headings = heading_rad + sway + np.linspace(-0.5, 0.5, steps) * bend_rad
    moves = np.stack((np.cos(headings), np.sin(headings)), axis=1) * step_px
    return np.asarray(start_xy) + np.concatenate((np.zeros((1, 2)), np.cumsum(moves, axis=0)))


def _starting_point(
    rng: np.random.Generator, shape_hw: tuple[int, int], heading_rad: float, length_px: float
) -> tuple[float, float]:
    """Choose where a path starts so that its middle lies well within the picture."""
    height, width = shape_hw
    middle_x, middle_y = between(rng, 0.25, 0.75) * width, between(rng, 0.25, 0.75) * height
    half_px = length_px / 2
    return middle_x - half_px * math.cos(heading_rad), middle_y - half_px * math.sin(heading_rad)


def _stroke(shape_hw: tuple[int, int], path: npt.NDArray[np.float64], half_widths_px: npt.NDArray[np.float64]) -> Field:
    """Widen a path into a stroke.

    Args:
        shape_hw: height and width of the picture in pixels.
        path: points, (N, 2) as x and y.
        half_widths_px: half the width of the stroke at each point, (N,).

    Returns:
        Distance to the edge in pixels, float32 (H, W), positive inside; -1000 everywhere when the path lies outside.
    """
    centre_line = np.zeros(shape_hw, np.float32)
    points = np.rint(path).astype(np.int64).tolist()
    for start, end, half_width_px in zip(points, points[1:], half_widths_px.tolist(), strict=False):
        cv2.line(centre_line, start, end, half_width_px, 1, cv2.LINE_8)
    on_line = centre_line > 0
    if not on_line.any():
        return np.full(shape_hw, -1e3, np.float32)
    distances, nearest = cv2.distanceTransformWithLabels(
        np.where(on_line, 0, 255).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    half_widths = np.zeros(int(nearest.max()) + 1, np.float32)
    half_widths[nearest[on_line]] = centre_line[on_line]
    inside = half_widths[nearest] - distances
    return np.asarray(cv2.GaussianBlur(inside, (0, 0), 0.8), dtype=np.float32)


def _coverage(inside: Field, *, soft_px: float = 1.0) -> Field:
    """Turn the distance to an edge into coverage, over an edge ``soft_px`` wide whose middle is the edge itself."""
    coverage = np.asarray(np.clip(inside / np.float32(soft_px) + np.float32(0.5), 0, 1), dtype=np.float32)
    # Where the field nearly reaches the edge but does not cross it, a faint and unlabelled shadow would be left.
    reach_px = math.ceil(soft_px)
    extent = (coverage >= np.float32(0.5)).astype(np.uint8)
    near = cv2.dilate(extent, np.ones((2 * reach_px + 1, 2 * reach_px + 1), np.uint8))
    return np.asarray(coverage * (near == 1), dtype=np.float32)


def _mean_tone(surface: Field, where: npt.NDArray[np.bool_]) -> float:
    """Return the mean reflectance of a region, or of the whole surface when the region is empty."""
    return float((surface[where] if where.any() else surface).mean())
