"""What is done for speed, or for size, changes no result."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from defectoscope.database import JobState
from defectoscope.settings import WorkerSettings
from tests.images import draw_part, encode
from tests.models import expect_mask
from worker.inspector import Inspector


def _parts(count, *, height=256, width=256):
    return {f"{seed:02}.png": draw_part(height=height, width=width, seed=seed)[0] for seed in range(count)}


@pytest.fixture
def other_worker(settings):
    made = []

    def make(**changes):
        worker = WorkerSettings(**settings.worker.model_dump() | changes)
        made.append(Inspector(settings.model_copy(update={"worker": worker})))
        return made[-1]

    yield make
    for inspector in made:
        inspector.close()


def _facts(bench, job_id):
    """Everything of a job's results that may not depend on how it was worked on."""
    return {
        name: (
            result.mask_sha256,
            result.defect_px,
            [(defect.box, defect.area_px, defect.max_probability, defect.mean_probability) for defect in found],
        )
        for name, (result, _) in bench.results(job_id).items()
        for found in [[_Plain(defect) for defect in bench.defects(result.id)]]
    }


class _Plain:
    def __init__(self, row):
        self.box = (row.x_min, row.y_min, row.x_max, row.y_max)
        self.area_px = row.area_px
        self.max_probability = row.max_probability
        self.mean_probability = row.mean_probability


@pytest.mark.parametrize("batch_size", [1, 3])
def test_results_are_equal_to_the_bit_whatever_the_batch_size(bench, other_worker, batch_size):
    images = {name: encode(pixels, "PNG") for name, pixels in _parts(7).items()}
    usual = bench.submit(images)
    bench.work(usual)
    # Another threshold that lies between the same two levels: the results are made anew and must be the same.
    unusual = bench.submit(images, threshold=0.5 + 1e-6)
    worker = other_worker(batch_size=batch_size)

    while bench.owed(unusual):
        worker.process_next_chunk()

    assert _facts(bench, unusual) == _facts(bench, usual)
    assert len(_facts(bench, usual)) == 7


def test_results_are_equal_to_the_bit_on_a_busy_worker(bench):
    images = {name: encode(pixels, "PNG") for name, pixels in _parts(12).items()}
    alone = bench.submit(images, chunk_size=12)
    bench.work(alone)

    busy = [bench.submit(images, chunk_size=2, threshold=0.5 + number * 1e-6) for number in (1, 2, 3)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: bench.inspector.process_next_chunk(), range(18)))

    assert [bench.job(job_id).state for job_id in busy] == [JobState.SUCCEEDED] * 3
    for job_id in busy:
        assert _facts(bench, job_id) == _facts(bench, alone)


def test_a_tiled_image_is_measured_at_its_own_resolution(bench):
    pixels = draw_part(height=700, width=900, seed=3)[0]

    job_id = bench.submit({"large.png": encode(pixels, "PNG")}, resize_policy="tile")
    bench.work(job_id)

    (result, image) = bench.results(job_id)["large.png"]
    assert (image.height, image.width) == (700, 900)
    assert np.array_equal(bench.mask(result), expect_mask(pixels))
    assert (result.resize_policy, result.tile_count, result.model_scale) == ("tile", 4 * 5, 1.0)


def test_images_beyond_the_memory_limit_go_one_by_one_and_none_is_lost(bench, other_worker):
    images = {name: encode(pixels, "PNG") for name, pixels in _parts(9).items()}
    job_id = bench.submit(images, chunk_size=9)

    other_worker(memory_bytes=1).process_next_chunk()

    assert bench.job(job_id).state is JobState.SUCCEEDED
    assert len(bench.results(job_id)) == 9


def test_clean_images_of_one_size_share_one_mask(bench):
    images = {
        name: encode(draw_part(height=256, width=256, seed=seed, with_defect=False)[0], "PNG")
        for seed, name in enumerate(("a.png", "b.png", "c.png"))
    }

    job_id = bench.submit(images, threshold=1.0)
    bench.work(job_id)

    assert len({result.mask_key for result, _ in bench.results(job_id).values()}) == 1
    assert all(not bench.mask(result).any() for result, _ in bench.results(job_id).values())
