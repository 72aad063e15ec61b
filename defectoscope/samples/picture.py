"""One sample: a material, perhaps some defects, seen by a camera; decided by the seed and the number alone.

Nothing here touches a file, a clock or global state: the same seed and number give the same bytes in every process.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from defectoscope.samples.defects import DEFECTS, paint
from defectoscope.samples.noise import Field, between, coordinates, happens, value_noise, white_noise
from defectoscope.samples.textures import TEXTURES

_UNUSUAL_SIZES_WH = ((640, 480), (480, 640), (720, 540), (800, 600))


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A picture and its label.

    Attributes:
        stem: name of its files without the suffix; differs between seeds and between numbers.
        pixels: uint8 (H, W, 3) RGB.
        class_mask: uint8 (H, W), 0 background and 1 defect.
        texture: the material: metal, rock or concrete.
        defects: the kinds drawn, in the order of drawing; empty for a defect-free sample.
    """

    stem: str
    pixels: npt.NDArray[np.uint8]
    class_mask: npt.NDArray[np.uint8]
    texture: str
    defects: tuple[str, ...]


def draw_sample(*, seed: int, number: int, with_defects: bool = True) -> Sample:
    """Draw one sample.

    Args:
        seed: 0 or more; another seed gives an unrelated series.
        number: position in the series, 0 or more. Sample 7 is the same whether 10 or 1000 are drawn.
        with_defects: False draws the same piece before it was damaged: same material, light and sensor noise. The two
            pictures differ only by what the defects changed.

    Returns:
        The sample; its mask is the geometry that was drawn.
    """
    sequence = np.random.SeedSequence((seed, number))
    plan, ground, damage, camera = (np.random.Generator(np.random.PCG64(child)) for child in sequence.spawn(4))

    width, height = _choose_size_wh(plan)
    texture = str(plan.choice(list(TEXTURES)))
    light_rad = between(plan, 0.0, 2 * math.pi)
    surface = TEXTURES[texture](ground, (height, width))
    class_mask = np.zeros((height, width), np.uint8)
    kinds: tuple[str, ...] = ()
    if with_defects and not _is_defect_free(seed=seed, number=number):
        how_many = int(plan.choice((1, 2, 3), p=(0.5, 0.35, 0.15)))
        kinds = tuple(str(kind) for kind in plan.choice(list(DEFECTS), how_many, replace=False))
    # Pictures of all sizes show a piece of about the same size, so defects grow with the picture.
    scale = math.sqrt(width * height) / 384
    for kind in kinds:
        mark = DEFECTS[kind](damage, surface, scale)
        surface, extent = paint(surface, mark, light_xy=(math.cos(light_rad), math.sin(light_rad)))
        class_mask[extent] = 1
    return Sample(
        stem=f"{seed}-{number:05d}-{texture}",
        pixels=_photograph(surface, camera, light_rad=light_rad),
        class_mask=class_mask,
        texture=texture,
        defects=kinds,
    )


def chosen_in_block(*, seed: int, number: int, block: int, purpose: int) -> bool:
    """Say whether this number is the one chosen out of its block of consecutive numbers.

    A drawn lot for each number would leave a small series without a defect-free sample or a validation part; one out
    of each full block cannot.

    Args:
        seed: the seed of the series.
        number: position in the series.
        block: length of a block; exactly one number of each block is chosen.
        purpose: keeps choices made for different reasons independent of each other.
    """
    lot = np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, number // block, purpose, block))))
    return int(lot.integers(block)) == number % block


def _is_defect_free(*, seed: int, number: int) -> bool:
    """Say whether this sample is the sound one out of its four."""
    return chosen_in_block(seed=seed, number=number, block=4, purpose=1)


def _choose_size_wh(rng: np.random.Generator) -> tuple[int, int]:
    """Choose a size: mostly 256 to 512 pixels a side, now and then larger."""
    if happens(rng, 0.08):
        return _UNUSUAL_SIZES_WH[int(rng.integers(len(_UNUSUAL_SIZES_WH)))]
    width = int(rng.integers(16, 33)) * 16
    if happens(rng, 0.35):
        return width, width
    # Sides differ by half at most: the model sees every picture stretched to a square.
    height = int(np.clip(round(width * between(rng, 0.67, 1.5) / 8) * 8, 256, 512))
    return width, height


def _photograph(surface: Field, rng: np.random.Generator, *, light_rad: float) -> npt.NDArray[np.uint8]:
    """Light a surface unevenly, darken the corners, add sensor noise and round to uint8 (H, W, 3) RGB."""
    shape_hw = (surface.shape[0], surface.shape[1])
    height, width = shape_hw
    x, y = coordinates(shape_hw)
    from_centre_x, from_centre_y = (x - width / 2) / (width / 2), (y - height / 2) / (height / 2)
    light = between(rng, 0.88, 1.12) + between(rng, 0.03, 0.14) * (
        from_centre_x * math.cos(light_rad) + from_centre_y * math.sin(light_rad)
    )
    light = light + 0.02 * value_noise(rng, shape_hw=shape_hw, cell_wh=(width / 2, height / 2))
    light = light * (1 - between(rng, 0.04, 0.13) * (from_centre_x**2 + from_centre_y**2))
    levels = np.asarray(surface * light[..., None] * 255, dtype=np.float32)
    grain = white_noise(rng, shape_hw=shape_hw) * np.float32(between(rng, 0.8, 2.2))
    chroma = rng.standard_normal((*shape_hw, 3), dtype=np.float32) * np.float32(between(rng, 0.3, 1.0))
    noisy: Field = levels + grain[..., None] + chroma
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)
