from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, insert

from defectoscope.database import QaScore
from defectoscope.inspection.scores import summarise_qa
from defectoscope.segmentation import PixelCounts, per_image_mean, pooled
from tests.integration.inspection.scene import label_facts, succeeded

IMAGES = 6

#: Zeros often: every score has a case where its formula would divide by zero.
pixels = st.one_of(st.just(0), st.integers(0, 5), st.integers(0, 2**33))
several_counts = st.lists(st.builds(PixelCounts, pixels, pixels, pixels, pixels), min_size=1, max_size=IMAGES)


@pytest.fixture
def labelled_job(scene):
    """A job whose images all have a label, and the ids of their results and labels."""
    job_id = scene.submit(images=IMAGES, chunk_size=IMAGES)
    chunk = scene.claim(*scene.owed(job_id))
    scene.complete(chunk, [succeeded(item, label=label_facts(item.name)) for item in chunk.items])
    return job_id, [(item.result_id, item.label_id) for item in scene.items(job_id)]


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(counts=several_counts, min_iou=st.floats(0, 1))
def test_scores_in_sql_are_those_of_the_definitions(scene, labelled_job, counts, min_iou):
    job_id, pairs = labelled_job
    with scene.database.transaction() as session:
        session.execute(delete(QaScore))
        session.execute(
            insert(QaScore),
            [
                {"result_id": result, "label_id": label, "tp": c.tp, "fp": c.fp, "fn": c.fn, "tn": c.tn}
                for (result, label), c in zip(pairs, counts, strict=False)
            ],
        )

    with scene.database.transaction() as session:
        summary = summarise_qa(session, job_id, min_iou=min_iou)

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

    with scene.database.transaction() as session:
        assert summarise_qa(session, job_id, min_iou=0.5) is None


def test_scores_of_one_job_never_count_for_another(scene, labelled_job):
    other = scene.submit(images=2, prefix="other")
    chunk = scene.claim(*scene.owed(other))
    scene.complete(
        chunk, [succeeded(item, label=label_facts(item.name, PixelCounts(1, 1, 1, 1))) for item in chunk.items]
    )

    with scene.database.transaction() as session:
        assert summarise_qa(session, other, min_iou=0.5).pooled == PixelCounts(2, 2, 2, 2)
        assert summarise_qa(session, labelled_job[0], min_iou=0.5).images == IMAGES
