"""What people ask of defects. Read only; pages are keyed, so deep ones cost no more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, func, select, true, tuple_
from sqlalchemy.orm import Session, aliased

from defectoscope.database import DefectRow, Image, Job, JobItem, ModelVersion, Result, Verdict
from defectoscope.inspection.queries import name_of_result

#: Defects of a job that are sorted anew for each page of the largest. Those of a larger job are picked out of all
#: defects in order of area, where they are frequent enough to be found soon.
_SORTED_AT_ONCE = 20_000


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


def list_defects(
    session: Session,
    *,
    wanted: DefectFilter,
    after: int = 0,
    after_area_px: int | None = None,
    limit: int = 100,
    largest_first: bool = False,
) -> list[DefectView]:
    """Return defects in the order of their results and there by number, or the largest first.

    Args:
        session: an open transaction.
        wanted: which defects.
        after: id of the last defect of the page before.
        after_area_px: its area, needed with ``largest_first``; None for the first page.
        limit: how many at the most.
        largest_first: order by area, and among equal areas the newest first.
    """
    # First the ids of the page, by index alone; then everything about them, and about no others.
    last = None
    if after and not largest_first:
        last = session.execute(select(DefectRow.result_id, DefectRow.number).where(DefectRow.id == after)).one_or_none()
        if last is None:
            return []
    defect, statement, in_order = _narrowed(
        session, wanted, from_result=last.result_id if last else 0, largest_first=largest_first
    )
    if largest_first:
        if after_area_px is not None:
            statement = statement.where(tuple_(defect.area_px, defect.id) < tuple_(after_area_px, after))
        statement = statement.order_by(defect.area_px.desc(), defect.id.desc())
    else:
        if last is not None:
            statement = statement.where(tuple_(defect.result_id, defect.number) > tuple_(*last))
        statement = statement.order_by(*in_order)
    ids = session.scalars(statement.limit(limit)).all()
    return _show(session, ids, job_id=wanted.job_id)


def _narrowed(
    session: Session, wanted: DefectFilter, *, from_result: int, largest_first: bool
) -> tuple[type[DefectRow], Select[int], tuple[Any, ...]]:
    """Select the ids of the wanted defects; with it, what to write conditions with, and the order of their results."""
    defect, statement = DefectRow, select(DefectRow.id)
    in_order: tuple[Any, ...] = (DefectRow.result_id, DefectRow.number)
    if wanted.job_id is not None:
        of_job = (JobItem.job_id == wanted.job_id, JobItem.verdict == Verdict.DEFECTIVE)
        defects = session.scalar(select(Job.defects).where(Job.id == wanted.job_id)) or 0
        if largest_first and defects > _SORTED_AT_ONCE:
            # One look for each defect, which the planner cannot turn into a join over all of them.
            named = select(JobItem.id).where(*of_job, JobItem.result_id == DefectRow.result_id).limit(1)
            statement = statement.where(named.correlate(DefectRow).scalar_subquery().is_not(None))
        else:
            # From result to result, in order: left to itself, the planner walks along the defects of every job.
            results = (
                select(JobItem.result_id)
                .where(*of_job, JobItem.result_id >= from_result)
                .distinct()
                .order_by(JobItem.result_id)
                .subquery()
            )
            of_result = select(DefectRow).where(DefectRow.result_id == results.c.result_id).offset(0).lateral()
            defect = aliased(DefectRow, of_result)
            statement = select(defect.id).select_from(results).join(of_result, true())
            in_order = (results.c.result_id, defect.number)
    if wanted.image_id is not None:
        statement = statement.where(defect.result_id.in_(select(Result.id).where(Result.image_id == wanted.image_id)))
    if wanted.result_id is not None:
        statement = statement.where(defect.result_id == wanted.result_id)
    if wanted.model_version is not None:
        version = select(ModelVersion.id).where(ModelVersion.number == wanted.model_version).scalar_subquery()
        statement = statement.join(Result, Result.id == defect.result_id).where(Result.model_version_id == version)
    if wanted.min_area_px is not None:
        statement = statement.where(defect.area_px >= wanted.min_area_px)
    if wanted.min_probability is not None:
        statement = statement.where(defect.max_probability >= wanted.min_probability)
    return defect, statement, in_order


def _show(session: Session, ids: Sequence[int], *, job_id: int | None) -> list[DefectView]:
    rows = session.execute(
        select(DefectRow, Result, name_of_result(job_id), Image.sha256, Image.source_uri, ModelVersion.number)
        .join(Result, Result.id == DefectRow.result_id)
        .join(Image, Image.id == Result.image_id)
        .join(ModelVersion, ModelVersion.id == Result.model_version_id)
        .where(DefectRow.id == func.any(ids))
    )
    found: dict[int, Any] = {row[0].id: row for row in rows}
    return [
        DefectView(
            defect=defect, result=result, name=name, image_sha256=sha256, source_uri=source_uri, model_version=number
        )
        for defect, result, name, sha256, source_uri, number in (found[defect_id] for defect_id in ids)
    ]
