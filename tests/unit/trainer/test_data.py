"""Labelled files: read through a cache or found in directories, decoded as serving decodes, refused by name."""

from __future__ import annotations

import numpy as np
import pytest

from defectoscope.database import Split
from defectoscope.dataset import LabelledImage
from defectoscope.errors.datasets import DatasetNotFound, InvalidDataset
from defectoscope.errors.storage import StorageFault
from defectoscope.segmentation import encode_mask
from defectoscope.storage import content_key, open_memory, put_content
from tests.images import draw_part, encode
from tests.unit.trainer.parts import write_parts
from trainer.cache import FileCache
from trainer.data import decode_ahead, open_revision, read_directory


def _store(storage, *, number, split, label=None, group=""):
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
        group=group,
    )


@pytest.fixture
def storage():
    return open_memory()


@pytest.fixture
def cache(storage, tmp_path):
    return FileCache(tmp_path / "cache", max_bytes=2**30, open_storage=lambda: storage)


def test_a_revision_keeps_its_split_and_fetches_nothing_before_it_is_read(storage, cache, tmp_path):
    images = [_store(storage, number=n, split=Split.VAL if n == 2 else Split.TRAIN) for n in range(3)]

    files = open_revision(images, cache=cache)

    assert [file.image_id for file in files.train] == [0, 1]
    assert [file.image_id for file in files.val] == [2]
    assert not (tmp_path / "cache").exists()


def test_a_file_of_a_revision_is_decoded_as_serving_decodes_it(storage, cache):
    files = open_revision([_store(storage, number=0, split=Split.TRAIN)], cache=cache)

    pixels, class_mask = files.train[0].decode()

    drawn, drawn_mask = draw_part(seed=0)
    assert np.array_equal(pixels, drawn)
    assert np.array_equal(class_mask, drawn_mask)


def test_many_images_may_share_one_empty_label(storage, cache, tmp_path):
    empty = encode_mask(np.zeros((48, 64), dtype=np.uint8))
    images = [_store(storage, number=n, split=Split.TRAIN, label=empty) for n in range(20)]

    for file in open_revision(images, cache=cache).train:
        file.decode()

    kept = [path for path in (tmp_path / "cache").iterdir() if path.name != ".usage"]
    assert len(kept) == 21


def test_an_object_with_other_bytes_than_its_hash_is_refused(storage, cache):
    image = _store(storage, number=0, split=Split.TRAIN)
    storage.put(image.label_key, b"something else", content_type="image/png")

    with pytest.raises(StorageFault, match="its hash differs"):
        open_revision([image], cache=cache).train[0].decode()


def test_an_image_without_a_group_is_a_group_of_its_own(storage, cache):
    images = [_store(storage, number=n, split=Split.VAL, group=group) for n, group in enumerate(("", "part-7"))]

    files = open_revision(images, cache=cache)

    assert [file.group for file in files.val] == ["part-0.png", "part-7"]


def test_files_are_decoded_ahead_in_their_order(tmp_path):
    files = _train_files(tmp_path, sizes_wh=[(40 + number, 48) for number in range(40)])

    shapes = list(decode_ahead(files, lambda file, pixels, class_mask: (file.name, pixels.shape, class_mask.shape)))

    expected = [(f"images/train/part-{number}.png", (48, 40 + number, 3), (48, 40 + number)) for number in range(40)]
    assert shapes == expected


def test_no_more_than_a_few_files_are_ahead_of_their_use(tmp_path):
    decoded = []
    coming = decode_ahead(_train_files(tmp_path, sizes_wh=[(32, 32)] * 60), lambda file, *_: decoded.append(file.name))

    next(coming)
    coming.close()

    assert 1 <= len(decoded) <= 16


def test_a_bad_file_is_named_when_its_turn_comes(tmp_path):
    files = _train_files(tmp_path, sizes_wh=[(32, 32)] * 5)
    (tmp_path / "images" / "train" / "part-3.png").write_bytes(b"no picture")
    coming = decode_ahead(files, lambda file, *_: file.name)

    seen = [next(coming) for _ in range(3)]

    assert seen == [f"images/train/part-{number}.png" for number in range(3)]
    with pytest.raises(InvalidDataset, match=r"images/train/part-3\.png cannot be used"):
        next(coming)


def _train_files(directory, *, sizes_wh):
    """Write parts and return them in the order of their numbers."""
    write_parts(directory, split="train", sizes_wh=sizes_wh)
    write_parts(directory, split="val", sizes_wh=[(32, 32)])
    return sorted(read_directory(directory).train, key=lambda file: int(file.name.split("-")[1][:-4]))


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
    contents = [[file.image.read() for file in files.val] for files in (first, renamed)]
    assert contents[0] == contents[1]


def test_a_directory_without_images_and_labels_is_refused(tmp_path):
    with pytest.raises(DatasetNotFound):
        read_directory(tmp_path)
