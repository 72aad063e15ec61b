"""Chance changes of an image and its class mask together, so that a network sees a part as it may lie and be lit.

Every change keeps a label true: what moves, moves in both; what comes in from outside the picture is ignored; light,
blur and noise touch the image alone. All chance is drawn from torch's generator of the CPU, which the caller seeds. It
refuses to change sizes: a batch is one tensor.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

from defectoscope.errors.api import InvalidRequest
from defectoscope.segmentation import IGNORED

AugmentationName = Literal["none", "flips", "standard"]

#: Takes and returns a (3, h, w) uint8 `tv_tensors.Image` and its (h, w) uint8 `tv_tensors.Mask`, of the same size.
Augmentation = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]

#: Colour of what comes in from outside: the mean of the ImageNet photographs, which normalisation makes zero.
_OUTSIDE_RGB = (124, 116, 104)

#: ``standard``: up to 10 degrees, a twentieth of the side and a tenth of the size, in half of the images.
_TURN_DEG = 10.0
_SHIFT_SHARE = 0.05
_SCALES = (0.9, 1.1)
_AFFINE_SHARE = 0.5
#: Brightness and contrast are each multiplied by 0.8 to 1.2.
_LIGHT = 0.2
#: One image in ten is blurred (by 0.3 to 1 pixel), one in ten gets noise (2 % of the range, standard deviation).
_BLUR_PX = (0.3, 1.0)
_NOISE_SIGMA = 0.02
_DISTURBED_SHARE = 0.1


class QuarterTurns(v2.Transform):  # type: ignore[misc]  # torchvision ships no types
    """Turn by 0, 90, 180 or 270 degrees, each as likely; an image that is not square by 0 or 180, to keep its size."""

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the number of quarter turns, the same for image and mask."""
        height, width = v2.functional.get_size(flat_inputs[0])
        turns = int(torch.randint(4, ()))
        return {"turns": turns if height == width else turns // 2 * 2}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Turn one of them. The pixels are moved, not computed anew."""
        return tv_tensors.wrap(torch.rot90(inpt.as_subclass(torch.Tensor), params["turns"], (-2, -1)), like=inpt)


def make_augmentation(name: str) -> Augmentation | None:
    """Return the changes that a recipe names.

    Args:
        name: "none"; "flips", mirrored left to right and upside down, each in half of the images; or "standard":
            flips, quarter turns, small affine movements with the outside ignored, brightness, contrast, a little blur
            and noise.

    Returns:
        Something that may be sent to another process, or None where nothing is to be changed.

    Raises:
        InvalidRequest: there is no augmentation of this name.
    """
    flips = [v2.RandomHorizontalFlip(), v2.RandomVerticalFlip()]
    if name == "none":
        return None
    if name == "flips":
        return _compose(flips)
    if name != "standard":
        raise InvalidRequest(f"There is no augmentation {name!r}; there are none, flips and standard.", name=name)
    affine = v2.RandomAffine(
        degrees=_TURN_DEG,
        translate=(_SHIFT_SHARE, _SHIFT_SHARE),
        scale=_SCALES,
        # Of a mask torchvision takes the nearest pixel whatever is said here: classes do not mix.
        interpolation=v2.InterpolationMode.BILINEAR,
        fill={tv_tensors.Image: _OUTSIDE_RGB, tv_tensors.Mask: IGNORED},
    )
    return _compose(
        [
            *flips,
            QuarterTurns(),
            v2.RandomApply([affine], p=_AFFINE_SHARE),
            v2.ColorJitter(brightness=_LIGHT, contrast=_LIGHT),
            v2.RandomApply([v2.GaussianBlur(3, sigma=_BLUR_PX)], p=_DISTURBED_SHARE),
            v2.RandomApply([v2.GaussianNoise(sigma=_NOISE_SIGMA)], p=_DISTURBED_SHARE),
        ]
    )


def _compose(transforms: list[Any]) -> Augmentation:
    composed: Augmentation = v2.Compose(transforms)
    return composed
