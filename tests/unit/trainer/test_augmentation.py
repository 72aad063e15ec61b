"""Augmentation: image and mask change together, classes do not mix, chance follows the generator alone."""

from __future__ import annotations

import pickle

import pytest
import torch
from torchvision import tv_tensors

from defectoscope.errors.api import InvalidRequest
from trainer.augmentation import QuarterTurns, make_augmentation


def _marked(height=48, width=48):
    """An image that is bright exactly where its mask says defect: a mark in one corner that no turn maps on itself."""
    class_mask = torch.zeros(height, width, dtype=torch.uint8)
    class_mask[4:20, 6:14] = 1
    pixels = torch.where(class_mask == 1, 230, 20).to(torch.uint8).expand(3, -1, -1).contiguous()
    return tv_tensors.Image(pixels), tv_tensors.Mask(class_mask)


def _many(name, *, count=60, **shape):
    augment = make_augmentation(name)
    torch.manual_seed(0)
    return [augment(*_marked(**shape)) for _ in range(count)]


def test_no_augmentation_is_none():
    assert make_augmentation("none") is None


def test_an_unknown_augmentation_is_refused():
    with pytest.raises(InvalidRequest, match="There is no augmentation 'mixup'"):
        make_augmentation("mixup")


@pytest.mark.parametrize("name", ["flips", "standard"])
def test_the_mask_stays_on_what_it_marks(name):
    for image, class_mask in _many(name):
        marked = image[:, class_mask == 1].float()
        unmarked = image[:, class_mask == 0].float()

        assert marked.mean() > 150
        assert unmarked.mean() < 60


@pytest.mark.parametrize(
    ("name", "classes"),
    [pytest.param("flips", {0, 1}, id="flips"), pytest.param("standard", {0, 1, 255}, id="standard ignores outside")],
)
def test_classes_do_not_mix(name, classes):
    seen = {int(value) for _, class_mask in _many(name) for value in class_mask.unique()}

    assert seen == classes


@pytest.mark.parametrize("shape", [(48, 48), (32, 64)], ids=["square", "wide"])
@pytest.mark.parametrize("name", ["flips", "standard"])
def test_sizes_and_types_stay(name, shape):
    height, width = shape

    for image, class_mask in _many(name, count=12, height=height, width=width):
        assert (image.shape, image.dtype) == ((3, height, width), torch.uint8)
        assert (class_mask.shape, class_mask.dtype) == ((height, width), torch.uint8)


def test_pixels_that_were_ignored_stay_ignored():
    image, class_mask = _marked()
    class_mask[4:20, 6:14] = 255
    augment = make_augmentation("standard")
    torch.manual_seed(1)

    for _ in range(40):
        changed, its_mask = augment(image, class_mask)

        # Interpolation and blur carry a mark's colour over its border by a pixel, and no further.
        assert (changed[:, its_mask != 255] > 150).float().mean() < 0.02


def test_quarter_turns_lead_to_all_four_places_and_are_exact():
    torch.manual_seed(0)
    image, class_mask = _marked()

    found = [QuarterTurns()(image, class_mask) for _ in range(40)]

    places = {tuple(mask.nonzero()[0].tolist()) for _, mask in found}
    assert len(places) == 4
    assert all(torch.equal(image[0] > 100, mask == 1) for image, mask in found)


def test_the_same_generator_gives_the_same_images():
    first, second = _many("standard", count=8), _many("standard", count=8)

    for (image, class_mask), (same_image, same_mask) in zip(first, second, strict=True):
        assert torch.equal(image, same_image)
        assert torch.equal(class_mask, same_mask)
    assert len({image.numpy().tobytes() for image, _ in first}) > 4


def test_an_augmentation_can_be_sent_to_another_process():
    augment = make_augmentation("standard")

    copied = pickle.loads(pickle.dumps(augment))  # noqa: S301 -- our own bytes

    torch.manual_seed(3)
    expected, _ = augment(*_marked())
    torch.manual_seed(3)
    assert torch.equal(copied(*_marked())[0], expected)
