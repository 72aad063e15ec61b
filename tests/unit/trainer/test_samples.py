"""What the network sees where images are letterboxed or cut into tiles."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from defectoscope.segmentation import lay_out
from tests.unit.trainer.parts import TINY, write_parts
from tests.unit.trainer.training import Copies, fit_parts
from trainer.arrays import SampleSet, load_samples
from trainer.build import contract_of
from trainer.config import TrainingConfig
from trainer.data import read_directory
from trainer.quantise import calibration_batches
from trainer.samples import Sample, draw_crop, fit_whole

TILED = {**TINY, "resize_policy": "tile"}
CONTRACT = contract_of(TrainingConfig.resolve(TILED), dataset_revision=None)
SIZES_WH = [(150, 100), (70, 200), (64, 64), (40, 130)]
TILES = [6, 8, 1, 3]


@pytest.fixture(scope="module")
def frames_dir(tmp_path_factory):
    directory = tmp_path_factory.mktemp("frames")
    for split in ("train", "val"):
        write_parts(directory, split=split, sizes_wh=SIZES_WH, clean=(3,))
    return directory


def test_the_contract_of_a_tiled_recipe_says_how_tiles_lie():
    assert (CONTRACT.resize_policy, CONTRACT.tile_overlap_px, CONTRACT.model_scale) == ("tile", 16, 1.0)


def test_what_a_letterbox_fills_up_is_ignored():
    contract = replace(CONTRACT, resize_policy="letterbox")
    whole = Sample(np.full((100, 50, 3), 7, dtype=np.uint8), np.ones((100, 50), dtype=np.uint8))

    fitted = fit_whole(whole, contract=contract)

    assert np.array_equal(fitted.pixels, lay_out((100, 50), contract=contract).model_input(whole.pixels, 0))
    assert (fitted.class_mask[:, 16:48] == 1).all()
    assert (fitted.class_mask[:, :16] == 255).all()
    assert (fitted.class_mask[:, 48:] == 255).all()


def test_half_of_the_crops_show_a_defect_that_chance_would_hardly_meet():
    y, x = np.indices((600, 800))
    pixels = np.stack([y % 256, x % 256, y // 256 * 16 + x // 256], axis=2).astype(np.uint8)
    class_mask = np.zeros((600, 800), dtype=np.uint8)
    class_mask[300:303, 500:503] = 1
    whole = Sample(pixels, class_mask)

    crops = [draw_crop(whole, contract=CONTRACT, chance=np.random.default_rng(seed)) for seed in range(200)]

    shown = [crop for crop in crops if crop.class_mask.any()]
    assert 70 < len(shown) < 130
    # Anywhere in the crop, its borders included.
    tops = [int(np.argwhere(crop.class_mask == 1)[0, 0]) for crop in shown]
    assert min(tops) < 8
    assert max(tops) > 55
    for crop in crops:
        top, left = (int(crop.pixels[0, 0, axis]) for axis in (0, 1))
        at = int(crop.pixels[0, 0, 2])
        top, left = top + 256 * (at // 16), left + 256 * (at % 16)
        assert np.array_equal(crop.pixels, pixels[top : top + 64, left : left + 64])
        assert np.array_equal(crop.class_mask, class_mask[top : top + 64, left : left + 64])


def test_a_crop_of_an_image_smaller_than_a_tile_ignores_what_is_beyond_it():
    whole = Sample(np.full((40, 50, 3), 7, dtype=np.uint8), np.ones((40, 50), dtype=np.uint8))

    crop = draw_crop(whole, contract=CONTRACT, chance=np.random.default_rng(0))

    assert (crop.class_mask[:40, :50] == 1).all()
    assert np.count_nonzero(crop.class_mask == 255) == 64 * 64 - 40 * 50
    assert (crop.pixels == 7).all()


def test_a_crop_at_another_scale_holds_more_of_the_image():
    contract = replace(CONTRACT, model_scale=0.5)
    class_mask = np.zeros((128, 128), dtype=np.uint8)
    class_mask[:64] = 1

    crop = draw_crop(Sample(np.zeros((128, 128, 3), dtype=np.uint8), class_mask), contract=contract, chance=_chance())

    assert crop.pixels.shape == (64, 64, 3)
    assert (crop.class_mask[:32] == 1).all()
    assert not crop.class_mask[32:].any()


def _chance():
    return np.random.default_rng(1)


def test_crops_depend_on_seed_epoch_and_place_and_on_nothing_else(frames_dir):
    files = read_directory(frames_dir).train
    options = {"contract": CONTRACT, "augmentation": "flips", "draws_crops": True}
    first = SampleSet(files, **options, seed=1)
    read = SampleSet(files, **options, seed=1, memory_bound_bytes=0)
    other = SampleSet(files, **options, seed=2)
    _in_epoch(first, 0)

    assert len(first) == sum(TILES)
    assert (first.in_memory, read.in_memory) == (True, False)
    assert _are_equal(_in_epoch(first, 2), _in_epoch(read, 2))
    assert _are_equal(_in_epoch(first, 2)[2:4], [first[2], first[3]])
    # Two crops of one image.
    assert not _are_equal([first[0]], [first[1]])
    assert not _are_equal(_in_epoch(first, 2), _in_epoch(first, 3))
    assert not _are_equal(_in_epoch(first, 2), _in_epoch(other, 2))


def test_validation_sees_every_pixel_of_every_image(frames_dir):
    files = read_directory(frames_dir)

    train, val = load_samples(files, contract=CONTRACT, augmentation="none")
    read = SampleSet(files.val, contract=CONTRACT, memory_bound_bytes=0)

    assert (len(train), len(val)) == (sum(TILES), sum(TILES))
    assert _are_equal([val[index] for index in range(len(val))], read.__getitems__(range(len(read))))
    # The third image is one tile, whole.
    image, class_mask = val[sum(TILES[:2])]
    pixels, label = files.val[2].decode()
    assert np.array_equal(image.permute(1, 2, 0).numpy(), pixels)
    assert np.array_equal(class_mask.numpy(), label)


def test_int8_is_calibrated_on_tiles(frames_dir):
    files = read_directory(frames_dir).train

    (batch,) = calibration_batches(files, contract=CONTRACT)

    pixels, _ = files[1].decode()
    assert batch.shape == (4, 64, 64, 3)
    assert np.array_equal(batch[1], lay_out(pixels.shape[:2], contract=CONTRACT).model_input(pixels, 1))


def test_a_training_on_crops_goes_on_as_if_nothing_had_happened(frames_dir, tmp_path):
    recipe = {**TILED, "epochs": 2, "augmentation": "standard", "autocast": "off"}
    kept, again = (Copies(tmp_path / name) for name in ("kept", "again"))
    for name in ("kept", "again", "work", "resumed"):
        (tmp_path / name).mkdir()

    whole, _ = fit_parts(frames_dir, tmp_path / "work", checkpoints=kept, **recipe)
    resumed, _ = fit_parts(frames_dir, tmp_path / "resumed", checkpoints=again, resume_from=kept.paths[1], **recipe)

    ours, theirs = whole.state_dict(), resumed.state_dict()
    assert list(again.paths) == [2]
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def _in_epoch(samples, epoch):
    samples.set_epoch(epoch)
    return [samples[index] for index in range(len(samples))]


def _are_equal(first, second):
    return len(first) == len(second) and all(
        torch.equal(ours[part], theirs[part]) for ours, theirs in zip(first, second, strict=True) for part in (0, 1)
    )
