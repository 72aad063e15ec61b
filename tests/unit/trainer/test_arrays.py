"""Samples: what the network sees, in memory or read through a cache, changed by chance that can be repeated."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from defectoscope.database import Split
from defectoscope.dataset import LabelledImage
from defectoscope.errors.datasets import InvalidDataset
from defectoscope.segmentation import decode_image, encode_mask, to_model_input
from defectoscope.storage import content_key, open_local, put_content
from tests.images import draw_part, encode
from tests.unit.trainer.parts import TINY, write_parts
from trainer.arrays import SampleSet, load_samples
from trainer.build import contract_of
from trainer.cache import FileCache
from trainer.config import TrainingConfig
from trainer.data import LabelledFiles, open_revision, read_directory
from trainer.samples import resize_label

CONTRACT = contract_of(TrainingConfig.resolve(TINY), dataset_revision=None)


def test_a_sample_is_what_serving_would_hand_to_the_model(parts_dir):
    files = read_directory(parts_dir)

    image, class_mask = SampleSet(files.train, contract=CONTRACT)[1]

    pixels = decode_image(files.train[1].image.read()).pixels
    assert np.array_equal(image.permute(1, 2, 0).numpy(), to_model_input(pixels, contract=CONTRACT))
    assert class_mask.shape == (64, 64)
    assert class_mask.dtype == torch.uint8
    assert type(image) is torch.Tensor


def test_samples_that_do_not_fit_in_memory_are_read_one_by_one_and_are_the_same(parts_dir):
    files = read_directory(parts_dir).train

    kept = SampleSet(files, contract=CONTRACT)
    read = SampleSet(files, contract=CONTRACT, memory_bound_bytes=0)

    assert (kept.in_memory, read.in_memory) == (True, False)
    assert all(torch.equal(kept[n][part], read[n][part]) for n in range(len(files)) for part in (0, 1))


def test_image_and_label_are_mirrored_together(tmp_path):
    write_parts(tmp_path, split="train", sizes_wh=[(64, 64)] * 2)
    samples = SampleSet(read_directory(tmp_path).train, contract=CONTRACT, augmentation="flips")

    seen = [_in_epoch(samples, epoch)[0] for epoch in range(24)]

    # The scratch is 90 levels darker than the surface: where the label is, the image is dark, whichever way it lies.
    assert len({image.numpy().tobytes() for image, _ in seen}) == 4
    for image, class_mask in seen:
        grey = image.float().mean(dim=0)
        assert grey[class_mask == 1].mean() < grey[class_mask == 0].mean() - 50


def test_chance_depends_on_seed_epoch_and_place_and_on_nothing_else(parts_dir):
    files = read_directory(parts_dir).train
    first = SampleSet(files, contract=CONTRACT, augmentation="flips", seed=1)
    resumed = SampleSet(files, contract=CONTRACT, augmentation="flips", seed=1)
    other = SampleSet(files, contract=CONTRACT, augmentation="flips", seed=2)
    _in_epoch(first, 0)
    _in_epoch(first, 1)
    torch.manual_seed(99)

    uninterrupted, again, by_another_seed = (_in_epoch(samples, 2) for samples in (first, resumed, other))

    assert _are_equal(uninterrupted, again)
    assert _are_equal(uninterrupted[5:], [resumed[5], *_in_epoch(resumed, 2)[6:]])
    assert not _are_equal(uninterrupted, _in_epoch(first, 3))
    assert not _are_equal(uninterrupted, by_another_seed)


def test_chance_in_samples_leaves_that_of_the_training_alone(parts_dir):
    samples = SampleSet(read_directory(parts_dir).train, contract=CONTRACT, augmentation="flips")
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)

    samples[0]

    assert torch.equal(torch.rand(3), expected)


def test_reading_processes_hear_of_each_epoch_and_give_what_one_process_gives(tmp_path):
    files = _revision(tmp_path, count=6, max_bytes=2**30).train
    options = {"contract": CONTRACT, "augmentation": "flips", "seed": 3}
    kept = SampleSet(files, **options)
    read = SampleSet(files, **options, memory_bound_bytes=0)
    loader = DataLoader(read, batch_size=2, num_workers=1, multiprocessing_context="spawn", persistent_workers=True)

    for epoch in (4, 5):
        read.set_epoch(epoch)
        images, class_masks = (torch.cat(parts) for parts in zip(*loader, strict=True))

        expected = _in_epoch(kept, epoch)
        assert torch.equal(images, torch.stack([image for image, _ in expected]))
        assert torch.equal(class_masks, torch.stack([class_mask for _, class_mask in expected]))


def test_a_set_larger_than_its_cache_gives_the_same_samples_in_every_epoch(tmp_path):
    files = _revision(tmp_path, count=8, max_bytes=2**15).train
    read = SampleSet(files, contract=CONTRACT, memory_bound_bytes=0)
    kept = SampleSet(files, contract=CONTRACT)

    epochs = [[item for start in (0, 4) for item in read.__getitems__(range(start, start + 4))] for _ in range(2)]

    assert all(_are_equal(epoch, [kept[n] for n in range(8)]) for epoch in epochs)
    assert _size_bytes(tmp_path / "cache") <= 2**15 < _size_bytes(tmp_path / "storage")


def _revision(directory, *, count, max_bytes):
    """Put drawn parts into a storage, behind a cache that other processes can open too."""
    storage = open_local(directory / "storage")
    images = []
    for number in range(count):
        pixels, class_mask = draw_part(height=64, width=64, seed=number)
        image_sha256, label_sha256 = (
            put_content(storage, data, content_type="image/png")
            for data in (encode(pixels, "PNG"), encode_mask(class_mask))
        )
        images.append(
            LabelledImage(
                image_id=number,
                label_id=number,
                name=f"part-{number}.png",
                split=Split.TRAIN,
                image_key=content_key(image_sha256),
                image_sha256=image_sha256,
                label_key=content_key(label_sha256),
                label_sha256=label_sha256,
            )
        )
    cache = FileCache(directory / "cache", max_bytes=max_bytes, open_storage=partial(open_local, directory / "storage"))
    return open_revision(images, cache=cache)


def _size_bytes(directory):
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def _in_epoch(samples, epoch):
    samples.set_epoch(epoch)
    return [samples[index] for index in range(len(samples))]


def _are_equal(first, second):
    return len(first) == len(second) and all(
        torch.equal(ours[part], theirs[part]) for ours, theirs in zip(first, second, strict=True) for part in (0, 1)
    )


def test_classes_do_not_mix_when_a_label_is_resized():
    class_mask = np.array([[0, 1], [255, 0]], dtype=np.uint8)

    resized = resize_label(class_mask, size_wh=(4, 4))

    assert resized.tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [255, 255, 0, 0], [255, 255, 0, 0]]


@pytest.mark.parametrize(
    ("clean", "train_count", "val_count", "sentence"),
    [
        pytest.param((), 1, 1, "at least two labelled images; there are 1", id="one image"),
        pytest.param((), 2, 0, "no labelled image to validate on", id="nothing to validate on"),
        pytest.param((0, 1), 2, 1, "shows any defect", id="no defect"),
    ],
)
def test_a_dataset_that_cannot_be_trained_on_is_refused(tmp_path, clean, train_count, val_count, sentence):
    write_parts(tmp_path, split="train", sizes_wh=[(64, 64)] * train_count, clean=clean)
    write_parts(tmp_path, split="val", sizes_wh=[(64, 64)])
    files = read_directory(tmp_path)

    with pytest.raises(InvalidDataset, match=sentence):
        load_samples(
            LabelledFiles(train=files.train, val=files.val[:val_count]), contract=CONTRACT, augmentation="none"
        )


@pytest.mark.parametrize(
    ("kind", "data", "code"),
    [
        pytest.param("images", b"", "image_empty", id="an empty image"),
        pytest.param("images", b"no picture", "image_not_recognised", id="no image"),
        pytest.param("labels", encode_mask(np.zeros((8, 8), dtype=np.uint8)), "label_size_mismatch", id="other size"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path, kind, data, code):
    write_parts(tmp_path, split="train", sizes_wh=[(64, 64)] * 3)
    (tmp_path / kind / "train" / "part-1.png").write_bytes(data)

    with pytest.raises(InvalidDataset, match=r"images/train/part-1\.png cannot be used") as refusal:
        SampleSet(read_directory(tmp_path).train, contract=CONTRACT)

    assert refusal.value.details["cause"] == code
