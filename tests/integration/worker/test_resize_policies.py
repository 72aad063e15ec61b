"""Large images through a job: in tiles, letterboxed or stretched, as the job asks and as the result says."""

from __future__ import annotations

import numpy as np
import pytest

from defectoscope.segmentation import DecodeLimits, SegmentationParams
from tests.images import encode
from tests.models import write_dark_is_defect
from worker.engine import EngineOptions, OnnxEngine
from worker.predict import predict


def _draw_frame():
    """A bright frame with a line one pixel wide, far longer than a tile."""
    pixels = np.full((700, 1000, 3), 250, dtype=np.uint8)
    pixels[50:650, 400] = 0
    return encode(pixels, "PNG")


def test_a_defect_across_many_tiles_of_a_job_is_one_defect_of_the_right_area(bench):
    job_id = bench.submit({"frame.png": _draw_frame()}, resize_policy="tile")

    bench.work(job_id)

    result, _ = bench.results(job_id)["frame.png"]
    assert [defect.area_px for defect in bench.defects(result.id)] == [600]
    assert np.count_nonzero(bench.mask(result)) == 600
    assert (result.resize_policy, result.tile_count, result.model_scale) == ("tile", 4 * 5, 1.0)


@pytest.mark.parametrize(
    ("policy", "scale"),
    [pytest.param(None, 256 / 1000, id="stretched"), pytest.param("letterbox", 256 / 1000, id="letterboxed")],
)
def test_the_same_defect_is_too_faint_in_the_whole_image(bench, policy, scale):
    job_id = bench.submit({"frame.png": _draw_frame()}, resize_policy=policy)

    bench.work(job_id)

    result, _ = bench.results(job_id)["frame.png"]
    assert bench.defects(result.id) == []
    assert (result.resize_policy, result.tile_count) == (policy or "stretch", 1)
    assert result.model_scale == pytest.approx(scale, abs=1e-3)


def test_a_job_in_tiles_gives_the_mask_that_predict_gives(bench, tmp_path):
    (tmp_path / "frame.png").write_bytes(_draw_frame())
    engine = OnnxEngine(write_dark_is_defect(tmp_path / "model.onnx"), options=EngineOptions(device="cpu"))
    job_id = bench.submit({"frame.png": _draw_frame()}, resize_policy="tile")
    bench.work(job_id)

    (prediction,) = predict(
        [tmp_path / "frame.png"],
        engine=engine,
        out=tmp_path / "out",
        params=SegmentationParams(threshold=0.5, min_area_px=1),
        limits=DecodeLimits(),
        overlays=False,
        policy="tile",
        on_progress=lambda _done, _total: None,
    )

    result, _ = bench.results(job_id)["frame.png"]
    assert (tmp_path / "out" / prediction.mask).read_bytes() == bench.storage.get(result.mask_key)
