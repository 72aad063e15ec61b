"""Labelled files: fetched under their hashes, found in directories, decoded as serving decodes, refused by name."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch

from defectoscope.database import Split
from defectoscope.dataset import LabelledImage
from defectoscope.errors import DatasetNotFound, InvalidDataset, StorageFault
from defectoscope.segmentation import decode_image, encode_mask, to_model_input
from defectoscope.storage import content_key, open_memory, put_content
from tests.images import draw_part, encode
from tests.unit.trainer.parts import TINY, write_parts
from trainer.arrays import SampleSet, load_samples, resize_label
from trainer.build import contract_of
from trainer.config import TrainingConfig
from trainer.data import LabelledFiles, fetch_revision, read_directory

CONTRACT = contract_of(TrainingConfig.resolve(TINY), dataset_revision=None)


def _store(storage, *, number, split, label=None):
    pixels, class_mask = draw_part(seed=number)
    image_sha256 = put_content(storage, encode(pixels, "PNG"), content_type="image/png")
    label_sha256 = put_content(storage, encode_mask(class_mask) if label is None else label, content_type="image/png")
    return LabelledImage(
        image_id=number,
        label_id=number,
        name=f"part-{number}.png",
        split=split,
        image_key=content_key(image_sha256),
        image_sha256=image_sha256,
        label_key=content_key(label_sha256),
        label_sha256=label_sha256,
    )


def test_a_revision_is_fetched_by_content_and_keeps_its_split(tmp_path):
    storage = open_memory()
    images = [_store(storage, number=n, split=Split.VAL if n == 2 else Split.TRAIN) for n in range(3)]

    files = fetch_revision(images, storage=storage, cache_dir=tmp_path / "cache")

    assert [file.image_id for file in files.train] == [0, 1]
    assert [file.image_id for file in files.val] == [2]
    for path in (tmp_path / "cache").iterdir():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name


def test_many_images_may_share_one_empty_label(tmp_path):
    storage = open_memory()
    empty = encode_mask(np.zeros((48, 64), dtype=np.uint8))
    images = [_store(storage, number=n, split=Split.TRAIN, label=empty) for n in range(20)]

    files = fetch_revision(images, storage=storage, cache_dir=tmp_path / "cache")

    assert len(list((tmp_path / "cache").iterdir())) == 21
    assert len({file.label_path for file in files.train}) == 1


def test_what_is_in_the_cache_is_not_fetched_again(tmp_path):
    storage = open_memory()
    images = [_store(storage, number=n, split=Split.TRAIN) for n in range(2)]
    first = fetch_revision(images, storage=storage, cache_dir=tmp_path)
    storage.delete([entry.key for entry in list(storage.list())])

    again = fetch_revision(images, storage=storage, cache_dir=tmp_path)

    assert again == first


def test_an_object_with_other_bytes_than_its_hash_is_refused_and_not_cached(tmp_path):
    storage = open_memory()
    image = _store(storage, number=0, split=Split.TRAIN)
    storage.put(image.label_key, b"something else", content_type="image/png")

    with pytest.raises(StorageFault, match="its hash differs"):
        fetch_revision([image], storage=storage, cache_dir=tmp_path)

    assert not (tmp_path / image.label_sha256).exists()


def test_a_split_directory_keeps_its_split_and_leaves_unlabelled_images_out(tmp_path):
    write_parts(tmp_path, split="train", sizes_wh=[(64, 48)] * 3)
    write_parts(tmp_path, split="val", sizes_wh=[(64, 48)] * 2, first_seed=10)
    (tmp_path / "labels" / "train" / "part-1.png").unlink()

    files = read_directory(tmp_path)

    assert [file.name for file in files.train] == ["images/train/part-0.png", "images/train/part-2.png"]
    assert [file.name for file in files.val] == ["images/val/part-10.png", "images/val/part-11.png"]


def test_a_flat_directory_is_split_by_content_and_not_by_name(tmp_path):
    write_parts(tmp_path / "a", split="", sizes_wh=[(64, 48)] * 10)
    write_parts(tmp_path / "b", split="", sizes_wh=[(64, 48)] * 10)
    for kind in ("images", "labels"):
        for number in range(10):
            path = tmp_path / "b" / kind / f"part-{number}.png"
            path.rename(path.with_name(f"renamed-{9 - number}.png"))

    first, renamed = read_directory(tmp_path / "a"), read_directory(tmp_path / "b")

    assert (len(first.train), len(first.val)) == (8, 2)
    contents = [[file.image_path.read_bytes() for file in files.val] for files in (first, renamed)]
    assert contents[0] == contents[1]


def test_a_directory_without_images_and_labels_is_refused(tmp_path):
    with pytest.raises(DatasetNotFound):
        read_directory(tmp_path)


def test_a_sample_is_what_serving_would_hand_to_the_model(parts_dir):
    files = read_directory(parts_dir)

    image, class_mask = SampleSet(files.train, contract=CONTRACT)[1]

    pixels = decode_image(files.train[1].image_path.read_bytes()).pixels
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
    torch.manual_seed(0)

    seen = [samples[0] for _ in range(16)]

    # The scratch is 90 levels darker than the surface: where the label is, the image is dark, whichever way it lies.
    assert len({image.numpy().tobytes() for image, _ in seen}) == 4
    for image, class_mask in seen:
        grey = image.float().mean(dim=0)
        assert grey[class_mask == 1].mean() < grey[class_mask == 0].mean() - 50


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
