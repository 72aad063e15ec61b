"""What people ask of jobs, images and results. Read only; pages are keyed, so deep ones cost no more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ScalarSelect, Select, func, select, union_all
from sqlalchemy.orm import Session

from defectoscope.database import (
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
from defectoscope.errors.jobs import ImageNotFound, JobNotFound, ResultNotFound
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


def find_job_by_key(session: Session, idempotency_key: str, *, token_id: int | None) -> tuple[Job, ModelVersion] | None:
    """Return the job that a token submitted under an idempotency key, with its model version, or None."""
    return session.execute(
        select(Job, ModelVersion)
        .join(ModelVersion, ModelVersion.id == Job.model_version_id)
        .where(Job.token_id == token_id, Job.idempotency_key == idempotency_key)
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
    # First the ids of the page, by index alone; then everything about them, and about no others.
    page = select(Result.id).where(Result.id > after).order_by(Result.id).limit(limit)
    if image_id is not None:
        page = page.where(Result.image_id == image_id)
        if verdict is not None:
            page = page.where(Result.verdict == verdict)
        if job_id is not None:
            page = page.where(
                select(JobItem.id).where(JobItem.job_id == job_id, JobItem.result_id == Result.id).exists()
            )
    elif job_id is not None:
        page = _results_of_job(job_id, list(Verdict) if verdict is None else [verdict], after=after, limit=limit)
    elif verdict is not None:
        page = page.where(Result.verdict == verdict)
    ids = session.scalars(page).all()
    rows = session.execute(_results(job_id).where(Result.id == func.any(ids)).order_by(Result.id))
    return [
        ResultView(result=result, image=image, name=name, model_version=number) for result, image, name, number in rows
    ]


def _results_of_job(job_id: int, verdicts: Sequence[Verdict], *, after: int, limit: int) -> Select[int]:
    """Select the first results of a job after one, each once, from an index that has them in order by verdict."""
    of_verdict = [
        select(JobItem.result_id)
        .where(JobItem.job_id == job_id, JobItem.verdict == verdict, JobItem.result_id > after)
        .distinct()
        .order_by(JobItem.result_id)
        .limit(limit)
        .subquery()
        for verdict in verdicts
    ]
    ids = union_all(*(select(part.c.result_id) for part in of_verdict)).subquery()
    return select(ids.c.result_id).order_by(ids.c.result_id).limit(limit)


def _results(job_id: int | None) -> Select[Result, Image, str | None, int]:
    return (
        select(Result, Image, name_of_result(job_id), ModelVersion.number)
        .join(Image, Image.id == Result.image_id)
        .join(ModelVersion, ModelVersion.id == Result.model_version_id)
    )


def name_of_result(job_id: int | None) -> ScalarSelect[str | None]:
    """Select the name of a result's image in a job, or in whichever job; of several the first in the alphabet."""
    names = select(func.min(JobItem.name)).where(JobItem.result_id == Result.id)
    if job_id is not None:
        names = names.where(JobItem.job_id == job_id)
    return names.correlate(Result).scalar_subquery()
