"""What counts as found, and that tiles and stretching are compared on the same images."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from benchmarks.tiling import Found, count_regions, read_recipe, read_split, score
from defectoscope.errors.datasets import InvalidDataset
from defectoscope.segmentation import ModelContract
from tests.images import encode
from tests.models import write_dark_is_defect
from trainer.runtime import onnx_engine

CONTRACT = ModelContract(
    input_size_wh=(64, 64),
    resize_policy="tile",
    threshold=0.5,
    min_area_px=0,
    class_names=("background", "defect"),
    architecture="threshold",
    encoder="none",
    dataset_revision=None,
    version=None,
)


@pytest.fixture
def frames_dir(tmp_path):
    """Nine frames of three places, each with a line two pixels wide but for the last of a place."""
    rows = []
    for number in range(9):
        pixels = np.full((300, 400, 3), 230, dtype=np.uint8)
        class_mask = np.zeros((300, 400), dtype=np.uint8)
        if number % 3 < 2:
            pixels[50:250, 100 + number] = pixels[50:250, 101 + number] = 20
            class_mask[50:250, 100 + number : 102 + number] = 255
        for folder, array in (("images", pixels), ("labels", class_mask)):
            path = tmp_path / "frames" / folder / f"frame-{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode(array, "PNG"))
        rows.append({"set": "frames", "stem": f"frame-{number}", "group": f"place-{number // 3}"})
    with (tmp_path / "manifest.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return tmp_path / "frames"


def test_a_region_is_found_when_one_of_its_pixels_is_claimed_and_false_when_it_meets_no_label():
    class_mask = np.zeros((20, 20), dtype=np.uint8)
    class_mask[2:5, 2:5] = class_mask[10:12, 10:12] = 1
    class_mask[15:, :] = 255
    mask = np.zeros((20, 20), dtype=np.uint8)
    mask[4:8, 4:8] = mask[0, 18] = mask[17, 3] = 255

    assert count_regions(mask, class_mask) == Found(labelled=2, found=1, claimed=2, false=1)


def test_frames_of_one_place_are_on_one_side(frames_dir):
    files = read_split(frames_dir)

    sides = [{file.group for file in side} for side in (files.train, files.val)]
    assert [len(files.train), len(files.val)] == [6, 3]
    assert not sides[0] & sides[1]


def test_a_directory_of_one_place_cannot_be_split(frames_dir):
    text = (frames_dir.parent / "manifest.csv").read_text()
    (frames_dir.parent / "manifest.csv").write_text(text.replace("place-1", "place-0").replace("place-2", "place-0"))

    with pytest.raises(InvalidDataset, match="9 labelled images in one group"):
        read_split(frames_dir)


def test_tiles_find_what_stretching_loses(frames_dir, tmp_path):
    files = read_split(frames_dir).val
    engine = onnx_engine(write_dark_is_defect(tmp_path / "dark.onnx", CONTRACT))

    (tiled, by_image), (stretched, _) = (
        score(files, engine=engine, contract=CONTRACT, policy=policy) for policy in ("tile", "stretch")
    )

    assert (tiled.regions.found, tiled.regions.labelled, tiled.regions.false) == (2, 2, 0)
    assert tiled.iou_pooled == 1.0
    assert stretched.iou_pooled < 0.5
    assert (tiled.inputs, stretched.inputs) == (3 * 8 * 6, 3)
    assert set(by_image) == {file.name for file in files}


def test_the_recipe_can_be_changed_from_the_command_line():
    config = read_recipe(["encoder=tu-resnet10t", "input_size_wh=[64, 96]", "epochs=2"], budget_s=5)

    assert (config.encoder, config.input_size_wh, config.epochs, config.time_budget_s) == (
        "tu-resnet10t",
        (64, 96),
        2,
        5,
    )
    assert config.resize_policy == "tile"
