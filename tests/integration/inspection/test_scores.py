from __future__ import annotations

import itertools

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from defectoscope.inspection.scores import summarise_qa
from defectoscope.segmentation import PixelCounts, per_image_mean, pooled
from tests.integration.inspection.scene import label_facts, succeeded

IMAGES = 6

#: Zeros often: every score has a case where its formula would divide by zero.
pixels = st.one_of(st.just(0), st.integers(0, 5), st.integers(0, 2**33))
several_counts = st.lists(st.builds(PixelCounts, pixels, pixels, pixels, pixels), min_size=1, max_size=IMAGES)


#: Tells the pictures of each job from those of every other.
_numbers = itertools.count()


def _score(scene, counts):
    """Run a job whose images have these counts, and return its id."""
    job_id = scene.submit(images=len(counts), chunk_size=4, prefix=f"lot-{next(_numbers)}")
    remaining = iter(counts)
    for chunk_id in scene.owed(job_id):
        chunk = scene.claim(chunk_id)
        scene.complete(chunk, [succeeded(item, label=label_facts(item.name, next(remaining))) for item in chunk.items])
    return job_id


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(counts=several_counts, min_iou=st.floats(0, 1))
def test_scores_in_sql_are_those_of_the_definitions(scene, counts, min_iou):
    job_id = _score(scene, counts)

    summary = summarise_qa(scene.job(job_id), min_iou=min_iou)

    assert summary.images == len(counts)
    assert summary.pooled == pooled(counts)
    assert summary.mean_iou_defect == pytest.approx(per_image_mean(counts, lambda c: c.iou_defect), abs=1e-12)
    assert summary.mean_iou_background == pytest.approx(per_image_mean(counts, lambda c: c.iou_background), abs=1e-12)
    assert summary.mean_iou == pytest.approx(per_image_mean(counts, lambda c: c.iou_mean), abs=1e-12)
    assert summary.mean_dice == pytest.approx(per_image_mean(counts, lambda c: c.dice), abs=1e-12)
    assert summary.passed is (pooled(counts).iou_defect >= min_iou)


def test_a_job_without_labels_has_no_scores(scene):
    job_id = scene.submit(images=2)
    scene.finish(*scene.owed(job_id))

    assert summarise_qa(scene.job(job_id), min_iou=0.5) is None


def test_scores_of_one_job_never_count_for_another(scene):
    first = _score(scene, [PixelCounts(16, 0, 0, 3056)] * IMAGES)
    other = _score(scene, [PixelCounts(1, 1, 1, 1)] * 2)

    assert summarise_qa(scene.job(other), min_iou=0.5).pooled == PixelCounts(2, 2, 2, 2)
    assert summarise_qa(scene.job(first), min_iou=0.5).images == IMAGES
