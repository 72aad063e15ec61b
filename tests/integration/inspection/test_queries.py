from __future__ import annotations

from dataclasses import replace

import pytest

from defectoscope.database import ItemState, JobState, Verdict
from defectoscope.errors.images import ImageEmpty
from defectoscope.errors.jobs import ImageNotFound, JobNotFound, ResultNotFound
from defectoscope.inspection.completion import ItemOutcome
from defectoscope.inspection.defects import DefectFilter, list_defects
from defectoscope.inspection.queries import (
    list_images,
    list_items,
    list_jobs,
    list_results,
    view_image,
    view_job,
    view_result,
)
from tests.integration.inspection.scene import DEFECT, label_facts, succeeded

#: Areas with many ties, in the order in which they are written.
AREAS = [7, 3, 7, 7, 1, 9, 3, 7, 1, 1, 9, 7, 3, 7]


@pytest.fixture
def filled(scene):
    """A job of nine images: seven with two defects each, one clean, one failed; and a second job of one image."""
    job_id = scene.submit(images=9, chunk_size=9)
    chunk = scene.claim(*scene.owed(job_id))
    outcomes = []
    for number, item in enumerate(chunk.items):
        if number == 8:
            outcomes.append(ItemOutcome(item_id=item.item_id, error=ImageEmpty()))
            continue
        areas = AREAS[2 * number : 2 * number + 2]
        defects = tuple(replace(DEFECT, number=turn, area_px=area) for turn, area in enumerate(areas, 1))
        outcomes.append(succeeded(item, label=label_facts(item.name), defects=defects))
    scene.complete(chunk, outcomes)
    other = scene.submit(images=1, prefix="other")
    scene.finish(*scene.owed(other))
    return scene, job_id, other


def _pages(read, cursor_of, *, first, limit):
    """Read page after page until one is not full; every entry that came."""
    found, cursor = [], first
    while page := read(cursor, limit):
        found += page
        cursor = cursor_of(page[-1])
    return found


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
def test_every_list_pages_through_everything_exactly_once(filled, limit):
    scene, job_id, other = filled
    with scene.database.transaction() as session:
        items = _pages(
            lambda after, n: list_items(session, job_id, after=after, limit=n),
            lambda view: view.item.id,
            first=0,
            limit=limit,
        )
        results = _pages(
            lambda after, n: list_results(session, after=after, limit=n),
            lambda view: view.result.id,
            first=0,
            limit=limit,
        )
        images = _pages(
            lambda before, n: list_images(session, before=before, limit=n),
            lambda image: image.id,
            first=None,
            limit=limit,
        )
        jobs = _pages(
            lambda before, n: list_jobs(session, before=before, limit=n), lambda row: row[0].id, first=None, limit=limit
        )
        defects = _pages(
            lambda after, n: list_defects(session, wanted=DefectFilter(), after=after, limit=n),
            lambda view: view.defect.id,
            first=0,
            limit=limit,
        )

    assert [view.item.name for view in items] == [f"image-{number}" for number in range(9)]
    assert len({view.result.id for view in results}) == len(results) == 9
    assert [image.id for image in images] == sorted({image.id for image in images}, reverse=True)
    assert len(images) == 9
    assert [job.id for job, _ in jobs] == [other, job_id]
    assert [view.defect.area_px for view in defects] == [*AREAS, DEFECT.area_px]


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 100])
def test_the_largest_defects_come_first_and_ties_are_neither_lost_nor_doubled(filled, limit):
    scene, job_id, _ = filled
    with scene.database.transaction() as session:
        defects = _pages(
            lambda cursor, n: list_defects(
                session,
                wanted=DefectFilter(job_id=job_id),
                after=cursor[0],
                after_area_px=cursor[1],
                limit=n,
                largest_first=True,
            ),
            lambda view: (view.defect.id, view.defect.area_px),
            first=(0, None),
            limit=limit,
        )

    assert [view.defect.area_px for view in defects] == sorted(AREAS, reverse=True)
    assert len({view.defect.id for view in defects}) == len(AREAS)


def test_a_job_is_shown_with_everything_counted(filled):
    scene, job_id, _ = filled
    with scene.database.transaction() as session:
        view = view_job(session, job_id)

    assert view.counts == {
        ItemState.PENDING: 0,
        ItemState.SUCCEEDED: 8,
        ItemState.FAILED: 1,
        ItemState.CANCELLED: 0,
    }
    assert (view.defective_images, view.defects, view.label_errors, view.model_version) == (7, 14, 0, 1)
    assert view.qa.images == 8
    assert view.job.state is JobState.PARTIAL


def test_lists_are_narrowed_by_what_is_asked(filled):
    scene, job_id, other = filled
    with scene.database.transaction() as session:
        failed = list_items(session, job_id, state=ItemState.FAILED)
        clean = list_results(session, verdict=Verdict.CLEAN)
        of_other = list_results(session, job_id=other)
        large = list_defects(session, wanted=DefectFilter(min_area_px=8, job_id=job_id))
        sure = list_defects(session, wanted=DefectFilter(min_probability=0.95))
        of_version = list_defects(session, wanted=DefectFilter(model_version=1))
        of_no_version = list_defects(session, wanted=DefectFilter(model_version=2))
        done = list_jobs(session, state=JobState.SUCCEEDED)

    assert [view.item.error_code for view in failed] == ["image_empty"]
    assert len(clean) == 1
    assert len(of_other) == 1
    assert [view.defect.area_px for view in large] == [9, 9]
    assert (len(sure), len(of_version), len(of_no_version)) == (0, 15, 0)
    assert [job.id for job, _ in done] == [other]


def test_what_does_not_exist_is_told_by_name(scene):
    with scene.database.transaction() as session:
        for view, error in ((view_job, JobNotFound), (view_image, ImageNotFound), (view_result, ResultNotFound)):
            with pytest.raises(error):
                view(session, 1000)
