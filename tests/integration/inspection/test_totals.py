"""The totals of a job are those that counting its rows would give, whatever has happened to it."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from decimal import Decimal

from sqlalchemy import text

from defectoscope.database import JobState
from defectoscope.errors.images import ImageEmpty, LabelSizeMismatch
from defectoscope.inspection.completion import ItemOutcome, complete_chunk
from defectoscope.inspection.jobs import cancel_job, retry_failed
from defectoscope.segmentation import PixelCounts
from tests.integration.inspection.scene import DEFECT, label_facts, succeeded
from tests.integration.inspection.stores import OWN, memory_buckets, run_enumeration, submit_manifest

TOTALS = (
    "pending_images", "succeeded_images", "failed_images", "cancelled_images", "label_errors", "defective_images",
    "defects", "scored_images", "tp", "fp", "fn", "tn", "iou_defect_sum", "iou_background_sum", "dice_sum",
)  # fmt: skip

RECOUNT = text("""
    SELECT count(*) FILTER (WHERE i.state = 'pending'), count(*) FILTER (WHERE i.state = 'succeeded'),
        count(*) FILTER (WHERE i.state = 'failed'), count(*) FILTER (WHERE i.state = 'cancelled'),
        count(i.label_error_code), count(*) FILTER (WHERE r.verdict = 'defective'),
        (SELECT coalesce(sum(defect_count), 0) FROM results
            WHERE id IN (SELECT result_id FROM job_items WHERE job_id = :job_id)),
        count(q.tp), coalesce(sum(q.tp), 0), coalesce(sum(q.fp), 0), coalesce(sum(q.fn), 0), coalesce(sum(q.tn), 0),
        coalesce(sum(CASE WHEN q.tp + q.fp + q.fn = 0 THEN 1 ELSE q.tp::numeric / (q.tp + q.fp + q.fn) END)
            FILTER (WHERE q.tp IS NOT NULL), 0),
        coalesce(sum(CASE WHEN q.tn + q.fp + q.fn = 0 THEN 1 ELSE q.tn::numeric / (q.tn + q.fp + q.fn) END)
            FILTER (WHERE q.tp IS NOT NULL), 0),
        coalesce(sum(CASE WHEN 2 * q.tp + q.fp + q.fn = 0 THEN 1
            ELSE 2 * q.tp::numeric / (2 * q.tp + q.fp + q.fn) END) FILTER (WHERE q.tp IS NOT NULL), 0)
    FROM job_items i LEFT JOIN results r ON r.id = i.result_id
    LEFT JOIN qa_scores q ON q.result_id = i.result_id AND q.label_id = i.label_id
    WHERE i.job_id = :job_id
""")


def _totals(scene, job_id):
    job = scene.job(job_id)
    return [Decimal(getattr(job, name)) for name in TOTALS]


def _recount(scene, job_id):
    with scene.database.transaction() as session:
        return [Decimal(count) for count in session.execute(RECOUNT, {"job_id": job_id}).one()]


def _assert_exact(scene, job_id):
    assert dict(zip(TOTALS, _totals(scene, job_id), strict=True)) == dict(
        zip(TOTALS, _recount(scene, job_id), strict=True)
    )


def _fail(item):
    return ItemOutcome(item_id=item.item_id, error=ImageEmpty())


def _outcome(item, dice):
    """One of everything that may come out, drawn from few pictures, so that results are shared."""
    if dice.random() < 0.2:
        return _fail(item)
    content = f"picture {dice.randrange(6)}"
    number = sum(content.encode()) % 3
    defects = tuple(replace(DEFECT, number=turn) for turn in range(1, number + 1))
    good = succeeded(item, content=content, defects=defects)
    if dice.random() < 0.2:
        return replace(good, label_error=LabelSizeMismatch())
    if dice.random() < 0.6:
        counts = PixelCounts(*(dice.choice([0, 1, 7, 2**33]) for _ in range(4)))
        return replace(good, label=label_facts(content, counts))
    return good


def test_after_success(scene):
    job_id = scene.submit(images=5, chunk_size=2)
    for chunk_id in scene.owed(job_id):
        scene.finish(chunk_id)

    _assert_exact(scene, job_id)
    assert scene.job(job_id).state is JobState.SUCCEEDED
    assert _totals(scene, job_id)[:7] == [0, 5, 0, 0, 0, 5, 5]


def test_at_every_step_of_jobs_that_share_pictures_fail_in_part_and_are_retried(scene):
    dice = random.Random(0)  # noqa: S311 -- only to be various
    jobs = [scene.submit(images=30, chunk_size=4, prefix=prefix) for prefix in "ab"]

    for _ in range(3):
        while chunk := scene.claim_next():
            scene.complete(chunk, [_outcome(item, dice) for item in chunk.items])
            _assert_exact(scene, chunk.job_id)
        for job_id in jobs:
            if scene.job(job_id).failed_images:
                retry_failed(database=scene.database, queue=scene.queue, job_id=job_id, chunk_size=3)
                _assert_exact(scene, job_id)

    for job_id in jobs:
        _assert_exact(scene, job_id)
        assert scene.job(job_id).scored_images > 0
        assert scene.job(job_id).label_errors > 0


def test_after_a_picture_under_several_names_in_chunks_that_complete_at_once(scene):
    job_id = scene.submit(images=24, chunk_size=2)
    chunks = [scene.claim_next() for _ in range(12)]

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda chunk: scene.complete(chunk, [succeeded(i, content="same") for i in chunk.items]), chunks))

    _assert_exact(scene, job_id)
    assert (scene.job(job_id).defects, scene.job(job_id).defective_images) == (1, 24)


def test_after_a_cancellation_of_begun_and_waiting_chunks(scene):
    job_id = scene.submit(images=12, chunk_size=4)
    scene.finish_claimed(scene.claim_next())
    begun = scene.claim_next()
    cancel_job(database=scene.database, job_id=job_id)
    _assert_exact(scene, job_id)

    complete_chunk(
        database=scene.database,
        chunk=begun,
        outcomes=[succeeded(begun.items[0]), _fail(begun.items[1])],
        stopped=True,
    )

    _assert_exact(scene, job_id)
    assert _totals(scene, job_id)[:4] == [0, 5, 1, 6]


def test_after_a_split_and_an_image_that_was_given_up(scene):
    job_id = scene.submit(images=3, chunk_size=3)
    for _ in range(2):
        scene.claim_next()
        scene.expire_leases()
    scene.reconcile()
    _assert_exact(scene, job_id)
    for chunk_id in scene.owed(job_id)[1:]:
        scene.finish(chunk_id)
    for _ in range(3):
        scene.claim_next()
        scene.expire_leases()
        scene.reconcile()

    _assert_exact(scene, job_id)
    assert _totals(scene, job_id)[:3] == [0, 2, 1]


def test_after_an_enumeration_with_wrong_addresses(scene):
    buckets = memory_buckets()
    manifest = f"uri,label_uri\ns3://{OWN}/a.png,nowhere\nnowhere,nowhere\ns3://{OWN}/b.png,\n"
    job_id = submit_manifest(scene, buckets, manifest.encode())

    run_enumeration(scene, buckets, job_id)
    _assert_exact(scene, job_id)
    chunk = scene.claim_next()
    scene.complete(chunk, [replace(succeeded(item), label_error=LabelSizeMismatch()) for item in chunk.items])

    _assert_exact(scene, job_id)
    assert _totals(scene, job_id)[:5] == [0, 2, 1, 0, 3]


def test_a_late_holder_of_a_chunk_counts_nothing(scene):
    job_id = scene.submit(images=2)
    late = scene.claim_next()
    scene.expire_leases()
    scene.finish_claimed(scene.claim_next())

    scene.finish_claimed(late)

    _assert_exact(scene, job_id)
    assert scene.job(job_id).succeeded_images == 2
