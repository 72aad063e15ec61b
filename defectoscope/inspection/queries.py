"""What people ask of jobs, images, results and defects. Read only; pages are keyed, so deep ones cost no more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ScalarSelect, Select, and_, func, or_, select
from sqlalchemy.orm import Session

from defectoscope.database import (
    DefectRow,
    Image,
    ItemState,
    Job,
    JobItem,
    JobState,
    ModelVersion,
    QaScore,
    Result,
    Verdict,
)
from defectoscope.errors import ImageNotFound, JobNotFound, ResultNotFound
from defectoscope.inspection.params import JobParams
from defectoscope.inspection.scores import QaSummary, summarise_qa
from defectoscope.inspection.totals import count_items
from defectoscope.segmentation import PixelCounts


@dataclass(frozen=True, slots=True, kw_only=True)
class JobView:
    """A job with everything counted."""

    job: Job
    model_version: int
    params: JobParams
    counts: dict[ItemState, int]
    defective_images: int
    defects: int
    label_errors: int
    qa: QaSummary | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemView:
    """One image of a job with its verdict and its QA counts, as far as it has come."""

    item: JobItem
    verdict: Verdict | None
    defect_count: int | None
    counts: PixelCounts | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultView:
    """A result with its image, the name it was submitted under, and its model version's number."""

    result: Result
    image: Image
    name: str | None
    model_version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DefectView:
    """A defect with the result and the image it was found in, and the name that image was submitted under."""

    defect: DefectRow
    result: Result
    name: str | None
    image_sha256: str
    source_uri: str | None
    model_version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DefectFilter:
    """Which defects to list; None means any."""

    job_id: int | None = None
    image_id: int | None = None
    result_id: int | None = None
    model_version: int | None = None
    min_area_px: int | None = None
    min_probability: float | None = None


def view_job(session: Session, job_id: int) -> JobView:
    """Return one job.

    Raises:
        JobNotFound: there is none.
    """
    found = session.execute(
        select(Job, ModelVersion.number)
        .join(ModelVersion, ModelVersion.id == Job.model_version_id)
        .where(Job.id == job_id)
    ).one_or_none()
    if found is None:
        raise JobNotFound(f"There is no job {job_id}.", job_id=job_id)
    job, number = found
    params = JobParams.from_json(job.params)
    return JobView(
        job=job,
        model_version=number,
        params=params,
        counts=count_items(job),
        defective_images=job.defective_images,
        defects=job.defects,
        label_errors=job.label_errors,
        qa=summarise_qa(job, min_iou=params.qa_min_iou),
    )


def list_jobs(
    session: Session, *, before: int | None = None, limit: int = 50, state: JobState | None = None
) -> Sequence[tuple[Job, int]]:
    """Return jobs with their model version's number, newest first, those with an id below ``before``."""
    statement = select(Job, ModelVersion.number).join(ModelVersion, ModelVersion.id == Job.model_version_id)
    if before is not None:
        statement = statement.where(Job.id < before)
    if state is not None:
        statement = statement.where(Job.state == state)
    return session.execute(statement.order_by(Job.id.desc()).limit(limit)).all()


def check_job(session: Session, job_id: int) -> None:
    """Raises: JobNotFound."""
    if session.get(Job, job_id) is None:
        raise JobNotFound(f"There is no job {job_id}.", job_id=job_id)


def find_job_by_key(session: Session, idempotency_key: str) -> tuple[Job, ModelVersion] | None:
    """Return the job that was submitted under an idempotency key, with its model version, or None."""
    return session.execute(
        select(Job, ModelVersion)
        .join(ModelVersion, ModelVersion.id == Job.model_version_id)
        .where(Job.idempotency_key == idempotency_key)
    ).one_or_none()


def list_items(
    session: Session, job_id: int, *, after: int = 0, limit: int = 100, state: ItemState | None = None
) -> list[ItemView]:
    """Return images of a job in the order they were submitted, those with an item id above ``after``."""
    statement = (
        select(JobItem, Result.verdict, Result.defect_count, QaScore)
        .outerjoin(Result, Result.id == JobItem.result_id)
        .outerjoin(QaScore, (QaScore.result_id == JobItem.result_id) & (QaScore.label_id == JobItem.label_id))
        .where(JobItem.job_id == job_id, JobItem.id > after)
    )
    if state is not None:
        statement = statement.where(JobItem.state == state)
    rows = session.execute(statement.order_by(JobItem.id).limit(limit))
    return [
        ItemView(
            item=item,
            verdict=verdict,
            defect_count=defect_count,
            counts=PixelCounts(score.tp, score.fp, score.fn, score.tn) if score else None,
        )
        for item, verdict, defect_count, score in rows
    ]


def view_image(session: Session, image_id: int) -> Image:
    """Return one image.

    Raises:
        ImageNotFound: there is none.
    """
    image = session.get(Image, image_id)
    if image is None:
        raise ImageNotFound(f"There is no image {image_id}.", image_id=image_id)
    return image


def list_images(
    session: Session, *, before: int | None = None, limit: int = 50, sha256: str | None = None
) -> Sequence[Image]:
    """Return images, newest first, those with an id below ``before``."""
    statement = select(Image)
    if before is not None:
        statement = statement.where(Image.id < before)
    if sha256 is not None:
        statement = statement.where(Image.sha256 == sha256)
    return session.scalars(statement.order_by(Image.id.desc()).limit(limit)).all()


def view_result(session: Session, result_id: int) -> ResultView:
    """Return one result.

    Raises:
        ResultNotFound: there is none.
    """
    found = session.execute(_results(None).where(Result.id == result_id)).one_or_none()
    if found is None:
        raise ResultNotFound(f"There is no result {result_id}.", result_id=result_id)
    return ResultView(result=found[0], image=found[1], name=found[2], model_version=found[3])


def list_results(
    session: Session,
    *,
    after: int = 0,
    limit: int = 50,
    job_id: int | None = None,
    image_id: int | None = None,
    verdict: Verdict | None = None,
) -> list[ResultView]:
    """Return results in the order they were made, those with an id above ``after``."""
    statement = _results(job_id).where(Result.id > after)
    if job_id is not None:
        statement = statement.where(Result.id.in_(select(JobItem.result_id).where(JobItem.job_id == job_id)))
    if image_id is not None:
        statement = statement.where(Result.image_id == image_id)
    if verdict is not None:
        statement = statement.where(Result.verdict == verdict)
    rows = session.execute(statement.order_by(Result.id).limit(limit))
    return [
        ResultView(result=result, image=image, name=name, model_version=number) for result, image, name, number in rows
    ]


def _results(job_id: int | None) -> Select[Result, Image, str | None, int]:
    return (
        select(Result, Image, _name(job_id), ModelVersion.number)
        .join(Image, Image.id == Result.image_id)
        .join(ModelVersion, ModelVersion.id == Result.model_version_id)
    )


def _name(job_id: int | None) -> ScalarSelect[str | None]:
    """Select the name of a result's image in a job, or in whichever job; of several the first in the alphabet."""
    names = select(func.min(JobItem.name)).where(JobItem.result_id == Result.id)
    if job_id is not None:
        names = names.where(JobItem.job_id == job_id)
    return names.correlate(Result).scalar_subquery()


def list_defects(
    session: Session,
    *,
    wanted: DefectFilter,
    after: int = 0,
    after_area_px: int | None = None,
    limit: int = 100,
    largest_first: bool = False,
) -> list[DefectView]:
    """Return defects by id, or the largest first.

    Args:
        session: an open transaction.
        wanted: which defects.
        after: id of the last defect of the page before.
        after_area_px: its area, needed with ``largest_first``; None for the first page.
        limit: how many at the most.
        largest_first: order by area, and by id among equal areas.
    """
    statement = (
        select(DefectRow, Result, _name(wanted.job_id), Image.sha256, Image.source_uri, ModelVersion.number)
        .join(Result, Result.id == DefectRow.result_id)
        .join(Image, Image.id == Result.image_id)
        .join(ModelVersion, ModelVersion.id == Result.model_version_id)
    )
    if wanted.job_id is not None:
        statement = statement.where(
            DefectRow.result_id.in_(select(JobItem.result_id).where(JobItem.job_id == wanted.job_id))
        )
    if wanted.image_id is not None:
        statement = statement.where(Result.image_id == wanted.image_id)
    if wanted.result_id is not None:
        statement = statement.where(DefectRow.result_id == wanted.result_id)
    if wanted.model_version is not None:
        statement = statement.where(ModelVersion.number == wanted.model_version)
    if wanted.min_area_px is not None:
        statement = statement.where(DefectRow.area_px >= wanted.min_area_px)
    if wanted.min_probability is not None:
        statement = statement.where(DefectRow.max_probability >= wanted.min_probability)
    if largest_first:
        if after_area_px is not None:
            statement = statement.where(
                or_(
                    DefectRow.area_px < after_area_px,
                    and_(DefectRow.area_px == after_area_px, DefectRow.id > after),
                )
            )
        statement = statement.order_by(DefectRow.area_px.desc(), DefectRow.id)
    else:
        statement = statement.where(DefectRow.id > after).order_by(DefectRow.id)
    return [
        DefectView(
            defect=defect,
            result=result,
            name=name,
            image_sha256=sha256,
            source_uri=source_uri,
            model_version=number,
        )
        for defect, result, name, sha256, source_uri, number in session.execute(statement.limit(limit))
    ]
