from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from defectoscope.errors.jobs import NoImagesFound
from defectoscope.segmentation import DecodeLimits, SegmentationParams, decode_mask
from tests.images import draw_part, encode
from tests.models import expect_mask, write_dark_is_defect
from worker.device import EngineOptions
from worker.engine import OnnxEngine
from worker.predict import find_images, predict

PARTS = {f"part-{seed}.png": draw_part(height=256 - seed, width=256 + seed, seed=seed)[0] for seed in range(3)}


@pytest.fixture
def engine(tmp_path):
    return OnnxEngine(write_dark_is_defect(tmp_path / "model.onnx"), options=EngineOptions(device="cpu"))


def _predict(inputs, *, engine, out, **changes):
    options = {
        "params": SegmentationParams(threshold=0.5, min_area_px=1),
        "limits": DecodeLimits(),
        "overlays": True,
        "on_progress": lambda _done, _total: None,
    }
    return predict(inputs, engine=engine, out=out, **options | changes)


def test_predict_gives_the_masks_that_a_job_gives(bench, engine, tmp_path):
    images = {name: encode(pixels, "PNG") for name, pixels in PARTS.items()}
    folder = tmp_path / "images"
    folder.mkdir()
    for name, data in images.items():
        (folder / name).write_bytes(data)
    job_id = bench.submit(images)
    bench.work(job_id)

    predictions = _predict([folder], engine=engine, out=tmp_path / "out")

    results = bench.results(job_id)
    for prediction in predictions:
        result, _ = results[prediction.name]
        assert (tmp_path / "out" / prediction.mask).read_bytes() == bench.storage.get(result.mask_key)
        assert (prediction.verdict, prediction.defect_px) == (result.verdict, result.defect_px)
        assert [defect["area_px"] for defect in prediction.defects] == [
            defect.area_px for defect in bench.defects(result.id)
        ]
    assert [prediction.name for prediction in predictions] == list(PARTS)


def test_a_small_defect_of_a_large_image_is_found_in_tiles(engine, tmp_path):
    pixels = np.full((900, 1100, 3), 255, dtype=np.uint8)
    # Two pixels wide: shrunk to the 256 pixels of the model it is a faint grey, and across borders of several tiles.
    pixels[100:800, 500:502] = 0
    (tmp_path / "frame.png").write_bytes(encode(pixels, "PNG"))

    found = {
        policy: _predict([tmp_path / "frame.png"], engine=engine, out=tmp_path / str(policy), policy=policy)[0]
        for policy in (None, "stretch", "letterbox", "tile")
    }

    assert [found[policy].verdict for policy in (None, "stretch", "letterbox", "tile")] == [*["clean"] * 3, "defective"]
    assert [defect["area_px"] for defect in found["tile"].defects] == [1400]


def test_the_report_the_overlays_and_the_progress_tell_what_was_done(engine, tmp_path):
    folder = tmp_path / "images"
    (folder / "deep").mkdir(parents=True)
    pixels = PARTS["part-0.png"]
    (folder / "deep" / "dark.png").write_bytes(encode(pixels, "PNG"))
    (folder / "white.png").write_bytes(encode(np.full((64, 64, 3), 255, np.uint8), "PNG"))
    (folder / "broken.png").write_bytes(b"no picture")
    (folder / "notes.txt").write_text("no picture")
    progress = []

    _predict([folder], engine=engine, out=tmp_path / "out", on_progress=lambda *step: progress.append(step))

    report = {entry["name"]: entry for entry in json.loads((tmp_path / "out" / "predictions.json").read_text())}
    assert progress == [(1, 3), (2, 3), (3, 3)]
    assert {name: entry["verdict"] for name, entry in report.items()} == {
        "broken.png": None,
        "deep/dark.png": "defective",
        "white.png": "clean",
    }
    assert report["broken.png"]["error"]["code"] == "image_not_recognised"
    assert report["deep/dark.png"]["mask"] == "masks/deep/dark.png"
    assert np.array_equal(decode_mask((tmp_path / "out/masks/deep/dark.png").read_bytes()), expect_mask(pixels))
    with Image.open(tmp_path / "out" / report["deep/dark.png"]["overlay"]) as picture:
        assert picture.size == (256, 256)
    assert report["white.png"]["overlay"] is None


def test_images_of_one_stem_do_not_overwrite_each_others_masks(engine, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    dark, bright = np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 255, np.uint8)
    (folder / "a.png").write_bytes(encode(dark, "PNG"))
    (folder / "a.bmp").write_bytes(encode(bright, "BMP"))

    predictions = _predict([folder], engine=engine, out=tmp_path / "out")

    masks = {entry.name: decode_mask((tmp_path / "out" / entry.mask).read_bytes()) for entry in predictions}
    assert {name: int(mask.max()) for name, mask in masks.items()} == {"a.bmp": 0, "a.png": 255}


def test_files_of_one_name_in_two_folders_are_both_taken_and_the_same_file_once(tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.png").write_bytes(b"x")

    found = find_images([tmp_path / "one" / "a.png", tmp_path / "two", tmp_path / "one"])

    assert found == {"a.png": tmp_path / "one" / "a.png", "2/a.png": tmp_path / "two" / "a.png"}


def test_nothing_to_do_is_an_error(tmp_path):
    with pytest.raises(NoImagesFound):
        find_images([tmp_path])
    with pytest.raises(NoImagesFound, match="no file or directory"):
        find_images([tmp_path / "missing"])
