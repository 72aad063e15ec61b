from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from defectoscope.errors.api import InvalidRequest
from defectoscope.errors.datasets import SampleDirectoryNotEmpty
from defectoscope.samples import SampleSet, generate_samples

PROGRAM = """
import sys
from pathlib import Path

import cv2

from defectoscope.samples import generate_samples

cv2.setNumThreads(int(sys.argv[2]))
generate_samples(Path(sys.argv[1]), count=8, seed=5)
"""


def digests(directory: Path) -> dict[str, str]:
    return {
        path.relative_to(directory).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def split_set(tmp_path_factory) -> SampleSet:
    return generate_samples(tmp_path_factory.mktemp("split"), count=20, seed=3)


def test_a_seed_gives_the_same_bytes_in_every_process(tmp_path):
    for name, threads in (("one", "1"), ("two", "4")):
        environment = {**os.environ, "PYTHONHASHSEED": threads}
        subprocess.run(
            [sys.executable, "-c", PROGRAM, str(tmp_path / name), threads], check=True, env=environment, timeout=120
        )

    one, two = digests(tmp_path / "one"), digests(tmp_path / "two")

    assert len(one) == 16
    assert one == two


def test_another_seed_gives_other_pictures(tmp_path):
    generate_samples(tmp_path / "one", count=2, seed=1, layout="flat")
    generate_samples(tmp_path / "two", count=2, seed=2, layout="flat")

    one, two = digests(tmp_path / "one"), digests(tmp_path / "two")

    assert not set(one) & set(two)
    assert not set(one.values()) & set(two.values())


def test_a_longer_series_begins_with_the_shorter_one(tmp_path):
    generate_samples(tmp_path / "short", count=3, seed=9)
    generate_samples(tmp_path / "long", count=6, seed=9)

    short, long = digests(tmp_path / "short"), digests(tmp_path / "long")

    assert len(short) == 6
    assert short.items() <= long.items()


def test_every_image_has_a_label_of_its_size_with_two_values(split_set):
    images = sorted((split_set.directory / "images").rglob("*.jpg"))

    assert len(images) == 20
    for image_path in images:
        label_path = split_set.directory / "labels" / image_path.parent.name / f"{image_path.stem}.png"
        with Image.open(image_path) as image, Image.open(label_path) as label:
            assert (image.format, image.mode) == ("JPEG", "RGB")
            assert (label.format, label.mode) == ("PNG", "L")
            assert label.size == image.size
            assert set(np.unique(np.asarray(label)).tolist()) <= {0, 255}


def test_one_of_five_is_for_validation_and_one_of_four_is_defect_free(split_set):
    labels = sorted((split_set.directory / "labels").rglob("*.png"))
    empty = [path for path in labels if not np.asarray(Image.open(path)).any()]

    assert (split_set.count, split_set.train_count, split_set.val_count) == (20, 16, 4)
    assert len(list((split_set.directory / "images" / "val").iterdir())) == 4
    assert split_set.defect_free_count == 5
    assert len(empty) == 5


def test_a_flat_batch_holds_the_same_files_without_the_split(split_set, tmp_path):
    flat = generate_samples(tmp_path, count=20, seed=3, layout="flat")

    in_split = {Path(name).name: digest for name, digest in digests(split_set.directory).items()}
    in_flat = {Path(name).name: digest for name, digest in digests(tmp_path).items()}

    assert in_flat == in_split
    assert {path.parent.name for path in tmp_path.rglob("*.*")} == {"images", "labels"}
    assert (flat.train_count, flat.val_count, flat.defect_free_count) == (0, 0, 5)


def test_progress_counts_every_sample(tmp_path):
    seen: list[tuple[int, int]] = []

    generate_samples(tmp_path, count=3, seed=0, on_progress=lambda done, total: seen.append((done, total)))

    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_a_directory_with_samples_is_left_alone(tmp_path):
    generate_samples(tmp_path, count=1, seed=0)
    before = digests(tmp_path)

    with pytest.raises(SampleDirectoryNotEmpty):
        generate_samples(tmp_path, count=1, seed=1)

    assert digests(tmp_path) == before


@pytest.mark.parametrize(
    ("count", "seed"), [pytest.param(0, 1, id="no sample"), pytest.param(1, -1, id="negative seed")]
)
def test_an_impossible_request_writes_nothing(tmp_path, count, seed):
    with pytest.raises(InvalidRequest):
        generate_samples(tmp_path, count=count, seed=seed)

    assert list(tmp_path.iterdir()) == []
