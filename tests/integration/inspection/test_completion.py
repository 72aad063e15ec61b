from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier

from sqlalchemy import select

from defectoscope.database import DefectRow, Image, Label, QaScore, Result, Verdict
from defectoscope.errors.images import LabelSizeMismatch
from defectoscope.inspection.chunks import find_known_results
from defectoscope.inspection.completion import ItemOutcome, complete_chunk
from defectoscope.inspection.queries import list_items
from defectoscope.segmentation import PixelCounts
from tests.integration.inspection.scene import (
    DEFECT,
    PARAMS,
    image_facts,
    label_facts,
    result_facts,
    succeeded,
)


def test_completion_writes_the_image_its_result_its_defects_and_its_score(scene):
    params = replace(PARAMS, mm_per_px=0.5)
    job_id = scene.submit(images=1, params=params)
    chunk = scene.claim(scene.owed(job_id)[0])
    second = replace(DEFECT, number=2, area_px=4, box_xyxy=(8, 8, 10, 10))
    outcome = succeeded(chunk.items[0], label=label_facts("a", PixelCounts(16, 4, 2, 3050)), defects=(DEFECT, second))

    complete_chunk(database=scene.database, chunk=chunk, outcomes=[outcome])

    with scene.database.transaction() as session:
        result = session.scalars(select(Result)).one()
        defects = session.scalars(select(DefectRow).order_by(DefectRow.number)).all()
        label = session.scalars(select(Label)).one()
        (view,) = list_items(session, job_id)
    assert (result.verdict, result.defect_px, result.defect_count) == (Verdict.DEFECTIVE, 20, 2)
    assert (result.threshold, result.min_area_px, result.mm_per_px) == (0.5, 1, 0.5)
    assert (result.provider, result.runtime_version, result.variant) == ("CPUExecutionProvider", "1", "fp32")
    assert [(d.x_min, d.y_min, d.x_max, d.y_max, d.area_px, d.area_mm2) for d in defects] == [
        (1, 2, 5, 6, 16, 4.0),
        (8, 8, 10, 10, 4, 1.0),
    ]
    assert (label.source, label.defect_px) == (f"job:{job_id}", 16)
    assert view.counts == PixelCounts(16, 4, 2, 3050)
    assert view.verdict is Verdict.DEFECTIVE


def test_completing_twice_writes_once(scene):
    chunk = scene.claim(scene.owed(scene.submit(images=2))[0])
    outcomes = [succeeded(item, label=label_facts(item.name)) for item in chunk.items]

    first = complete_chunk(database=scene.database, chunk=chunk, outcomes=outcomes)
    second = complete_chunk(database=scene.database, chunk=chunk, outcomes=outcomes)

    assert (first, second) == (True, False)
    assert [scene.count(table) for table in (Image, Result, DefectRow, Label, QaScore)] == [2] * 5


def test_the_same_picture_twice_in_a_chunk_is_one_image_with_one_result_and_two_labels(scene):
    job_id = scene.submit(images=2)
    chunk = scene.claim(scene.owed(job_id)[0])
    outcomes = [succeeded(item, content="same", label=label_facts(item.name)) for item in chunk.items]

    complete_chunk(database=scene.database, chunk=chunk, outcomes=outcomes)

    assert [scene.count(table) for table in (Image, Result, DefectRow)] == [1] * 3
    assert [scene.count(table) for table in (Label, QaScore)] == [2] * 2
    first, second = scene.items(job_id)
    assert (first.image_id, first.result_id) == (second.image_id, second.result_id)
    assert first.label_id != second.label_id


def test_chunks_with_the_same_pictures_in_opposite_order_complete_at_once(scene):
    names = [f"picture-{number}" for number in range(40)]
    chunks = [scene.claim(scene.owed(scene.submit(images=40, chunk_size=40))[0]) for _ in range(4)]
    together = Barrier(len(chunks))

    def complete(turn, chunk):
        contents = names if turn % 2 else names[::-1]
        outcomes = [
            succeeded(item, content=content, label=label_facts(content))
            for item, content in zip(chunk.items, contents, strict=True)
        ]
        together.wait()
        return complete_chunk(database=scene.database, chunk=chunk, outcomes=outcomes)

    with ThreadPoolExecutor(len(chunks)) as pool:
        completed = list(pool.map(complete, range(len(chunks)), chunks))

    assert completed == [True] * 4
    assert [scene.count(table) for table in (Image, Result, DefectRow, Label, QaScore)] == [40] * 5


def test_jobs_of_different_parameters_share_labels_in_opposite_order_without_a_deadlock(scene):
    names = [f"picture-{number}" for number in range(40)]
    scene.finish_with(scene.submit(images=40, chunk_size=40), names)
    jobs = [
        scene.submit(images=40, chunk_size=40, params=replace(PARAMS, threshold=0.1 * number)) for number in range(1, 5)
    ]
    chunks = [scene.claim(scene.owed(job_id)[0]) for job_id in jobs]
    together = Barrier(len(chunks))

    def complete(turn, chunk):
        contents = names if turn % 2 else names[::-1]
        outcomes = [
            succeeded(item, content=content, label=label_facts(content))
            for item, content in zip(chunk.items, contents, strict=True)
        ]
        together.wait()
        return complete_chunk(database=scene.database, chunk=chunk, outcomes=outcomes)

    with ThreadPoolExecutor(len(chunks)) as pool:
        completed = list(pool.map(complete, range(len(chunks)), chunks))

    assert completed == [True] * 4
    assert (scene.count(Label), scene.count(QaScore)) == (40, 160)


def test_a_result_is_shared_by_jobs_of_equal_parameters_and_scored_against_each_label(scene):
    first_job = scene.submit(images=1)
    scene.finish_with(first_job, ["picture"])
    second_job = scene.submit(images=1, params=replace(PARAMS, qa_min_iou=0.9))
    chunk = scene.claim(scene.owed(second_job)[0])

    sha256s = [image_facts(name).sha256 for name in ("picture", "unknown")]
    found = find_known_results(database=scene.database, chunk=chunk, image_sha256s=sha256s)
    complete_chunk(
        database=scene.database,
        chunk=chunk,
        outcomes=[
            ItemOutcome(
                item_id=chunk.items[0].item_id,
                image=image_facts("picture"),
                label=label_facts("picture", PixelCounts(1, 2, 3, 4)),
            )
        ],
    )

    assert list(found) == sha256s[:1]
    known = found[sha256s[0]]
    assert known.mask_key == result_facts().mask_key
    assert scene.items(second_job)[0].result_id == scene.items(first_job)[0].result_id == known.result_id
    assert (scene.count(Result), scene.count(DefectRow), scene.count(QaScore)) == (1, 1, 1)
    with scene.database.transaction() as session:
        assert list_items(session, second_job)[0].counts == PixelCounts(1, 2, 3, 4)
        assert list_items(session, first_job)[0].counts is None


def test_other_parameters_make_another_result(scene):
    for threshold in (0.5, 0.6):
        job_id = scene.submit(images=1, params=replace(PARAMS, threshold=threshold))
        scene.finish_with(job_id, ["picture"])

    assert (scene.count(Image), scene.count(Result)) == (1, 2)


def test_a_label_that_failed_leaves_the_result_standing(scene):
    job_id = scene.submit(images=1)
    chunk = scene.claim(scene.owed(job_id)[0])
    outcome = replace(succeeded(chunk.items[0]), label_error=LabelSizeMismatch())

    complete_chunk(database=scene.database, chunk=chunk, outcomes=[outcome])

    (item,) = scene.items(job_id)
    assert item.result_id is not None
    assert (item.error_code, item.label_error_code) == (None, "label_size_mismatch")
    assert scene.count(QaScore) == 0
