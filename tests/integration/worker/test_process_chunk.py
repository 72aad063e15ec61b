from __future__ import annotations

import hashlib
import io
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import onnxruntime
import pytest
from PIL import Image

from defectoscope.database import ItemState, JobState, Verdict
from defectoscope.inspection.params import Overlays
from defectoscope.segmentation import PixelCounts
from defectoscope.storage import content_key
from tests.images import draw_part, encode
from tests.models import expect_mask


def _part(seed, *, with_defect=True):
    return draw_part(height=256, width=256, seed=seed, with_defect=with_defect)


def _label(class_mask):
    return encode(class_mask * np.uint8(255), "PNG")


def _count(mask, class_mask):
    """The definition, spelled out; `defectoscope.segmentation` is not asked."""
    claimed, there = mask > 0, class_mask > 0
    return PixelCounts(
        int(np.sum(claimed & there)),
        int(np.sum(claimed & ~there)),
        int(np.sum(~claimed & there)),
        int(np.sum(~claimed & ~there)),
    )


def test_a_labelled_job_ends_with_masks_defects_and_scores_that_an_independent_computation_confirms(bench):
    parts = {f"part-{seed}.png": _part(seed, with_defect=seed % 3 != 0) for seed in range(6)}
    images = {name: encode(pixels, "PNG") for name, (pixels, _) in parts.items()}
    labels = {name: _label(class_mask) for name, (_, class_mask) in parts.items()}
    job_id = bench.submit(images, labels=labels, mm_per_px=0.5)

    bench.work(job_id)

    assert bench.job(job_id).state is JobState.SUCCEEDED
    results, items = bench.results(job_id), bench.items(job_id)
    for name, (pixels, class_mask) in parts.items():
        result, image = results[name]
        expected = expect_mask(pixels)
        regions, _, statistics, _ = cv2.connectedComponentsWithStats(expected, connectivity=8)
        assert np.array_equal(bench.mask(result), expected)
        assert items[name].counts == _count(expected, class_mask)
        assert result.defect_px == np.count_nonzero(expected)
        assert result.verdict is (Verdict.DEFECTIVE if expected.any() else Verdict.CLEAN)
        defects = bench.defects(result.id)
        assert sorted(defect.area_px for defect in defects) == sorted(statistics[1:, cv2.CC_STAT_AREA].tolist())
        assert [defect.number for defect in defects] == list(range(1, regions))
        assert all(defect.area_mm2 == defect.area_px * 0.25 for defect in defects)
        sha256 = hashlib.sha256(images[name]).hexdigest()
        assert (image.sha256, image.key, image.width, image.height) == (sha256, content_key(sha256), 256, 256)
        assert bench.storage.get(image.key) == images[name]
        assert hashlib.sha256(bench.storage.get(result.mask_key)).hexdigest() == result.mask_sha256
    qa = bench.view(job_id).qa
    counts = [_count(expect_mask(pixels), class_mask) for pixels, class_mask in parts.values()]
    assert qa.images == 6
    assert qa.pooled == sum(counts, start=PixelCounts(0, 0, 0, 0))
    assert qa.mean_iou_defect == pytest.approx(sum(count.iou_defect for count in counts) / 6)
    assert qa.passed is (qa.pooled.iou_defect >= 0.5)


def test_the_provider_and_the_runtime_that_really_ran_are_recorded(bench):
    job_id = bench.submit({"a.png": encode(_part(1)[0], "PNG")})

    bench.work(job_id)

    ((result, _),) = bench.results(job_id).values()
    assert (result.provider, result.runtime_version, result.variant) == (
        "CPUExecutionProvider",
        onnxruntime.__version__,
        "fp32",
    )
    assert result.latency_ms > 0


def test_the_threshold_and_the_smallest_area_of_the_job_are_used(bench):
    pixels = np.full((256, 256, 3), 255, dtype=np.uint8)
    pixels[10:20, 10:20] = 100  # probability 155 of 255
    pixels[50, 50] = 0
    data = {"a.png": encode(pixels, "PNG")}

    areas = {}
    for threshold, min_area_px in ((0.5, 1), (0.5, 2), (0.7, 1), (0.7, 2)):
        job_id = bench.submit(data, threshold=threshold, min_area_px=min_area_px)
        bench.work(job_id)
        ((result, _),) = bench.results(job_id).values()
        areas[threshold, min_area_px] = [defect.area_px for defect in bench.defects(result.id)]

    assert areas == {(0.5, 1): [100, 1], (0.5, 2): [100], (0.7, 1): [1], (0.7, 2): []}


@pytest.mark.parametrize(
    ("overlays", "drawn"),
    [
        (Overlays.NONE, set()),
        (Overlays.DEFECTIVE, {"defective.png"}),
        (Overlays.ALL, {"defective.png", "clean.png"}),
    ],
)
def test_overlays_are_drawn_for_the_results_that_were_asked_for(bench, overlays, drawn):
    images = {
        "defective.png": encode(_part(1)[0], "PNG"),
        "clean.png": encode(np.full((256, 256, 3), 255, dtype=np.uint8), "PNG"),
    }
    job_id = bench.submit(images, overlays=overlays)

    bench.work(job_id)

    keys = {name: result.overlay_key for name, (result, _) in bench.results(job_id).items()}
    assert {name for name, key in keys.items() if key} == drawn
    for name in drawn:
        with Image.open(io.BytesIO(bench.storage.get(keys[name]))) as picture:
            assert (picture.format, picture.size) == ("JPEG", (256, 256))


def test_a_second_job_over_the_same_images_uses_the_results_and_scores_its_own_labels(bench):
    pixels, class_mask = _part(1)
    images = {"a.png": encode(pixels, "PNG")}
    first = bench.submit(images, labels={"a.png": _label(class_mask)})
    bench.work(first)
    other_mask = np.roll(class_mask, 40, axis=0)

    second = bench.submit(images, labels={"a.png": _label(other_mask)})
    bench.work(second)
    third = bench.submit(images)
    bench.work(third)

    assert bench.results(first)["a.png"][0].id == bench.results(second)["a.png"][0].id
    assert bench.items(first)["a.png"].counts == _count(expect_mask(pixels), class_mask)
    assert bench.items(second)["a.png"].counts == _count(expect_mask(pixels), other_mask)
    assert bench.items(third)["a.png"].counts is None
    assert bench.job(third).state is JobState.SUCCEEDED


def test_the_same_picture_under_two_names_in_a_chunk_is_one_result(bench):
    data = encode(_part(1)[0], "PNG")
    job_id = bench.submit({"a.png": data, "b.png": data})

    bench.work(job_id)

    (first, _), (second, _) = bench.results(job_id).values()
    assert first.id == second.id
    assert bench.job(job_id).state is JobState.SUCCEEDED


def test_an_image_whose_key_happens_to_end_with_its_hash_is_kept_in_our_store_too(bench):
    data = encode(_part(1)[0], "PNG")
    name = hashlib.sha256(data).hexdigest()
    job_id = bench.submit({name: data})

    bench.work(job_id)

    _, image = bench.results(job_id)[name]
    assert bench.storage.get(image.key) == data


def test_two_hundred_images_in_chunks_taken_by_two_threads_all_end_once(bench):
    drawn = [_part(seed)[0] for seed in range(50)]
    files = [encode(pixels, "PNG", compress_level=1) for pixels in drawn]
    parts = {f"part-{number:03}.png": drawn[number % 50] for number in range(200)}
    job_id = bench.submit({name: files[number % 50] for number, name in enumerate(parts)}, chunk_size=40)
    turns = 2 * len(bench.owed(job_id))

    with ThreadPoolExecutor(2) as pool:
        # Every message doubled, as a broker may do.
        claimed = list(pool.map(lambda _: bench.inspector.process_next_chunk(), range(turns)))

    view = bench.view(job_id)
    assert sum(claimed) == 5
    assert view.job.state is JobState.SUCCEEDED
    assert view.counts[ItemState.SUCCEEDED] == 200
    results = bench.results(job_id)
    assert len({result.id for result, _ in results.values()}) == 50
    for name in list(parts)[::20]:
        assert np.array_equal(bench.mask(results[name][0]), expect_mask(parts[name]))
