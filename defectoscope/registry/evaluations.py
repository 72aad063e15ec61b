"""Evaluations: pixel counts of a version on a revision's validation images, recorded once; scores follow from them.

One figure stands for a version: the mean over validation images of the defect class's IoU, by its fp32 file. An image
without defects on which none is claimed scores 1, as everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Float, Select, case, cast, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from defectoscope.database import (
    DatasetRevision,
    Evaluation,
    EvaluationImage,
    LedgerAction,
    ModelVariant,
    ModelVersion,
    Promotion,
)
from defectoscope.errors import Fault
from defectoscope.registry.versions import DEFAULT_SCOPE, SERVED_PRECISION, find_version
from defectoscope.segmentation import PixelCounts

#: Rows in one INSERT; PostgreSQL takes 65 535 parameters, and a row has six.
_ROWS_AT_ONCE = 5_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageEvaluation:
    """Pixel counts of one validation image."""

    image_id: int
    counts: PixelCounts


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A version that was in service once and can be loaded still.

    Attributes:
        version: the version.
        mean_iou: mean per-image defect IoU of its latest evaluation, in 0..1.
        dataset: revision of that evaluation, such as ``steel@4``.
    """

    version: ModelVersion
    mean_iou: float
    dataset: str


def record_evaluation(
    session: Session, *, number: int, revision_id: int, precision: str, entries: Sequence[ImageEvaluation]
) -> int:
    """Record how a version's file did on a revision's validation images; a repetition changes nothing.

    The file and the revision are immutable, so there is one right answer, and the first one stays.

    Args:
        session: of the transaction.
        number: of the version.
        revision_id: of the dataset revision.
        precision: fp32, fp16 or int8.
        entries: one for each validation image; at least one, each image once.

    Returns:
        The evaluation's id.

    Raises:
        ModelVersionNotFound: there is no such version.
        Fault: there is no entry.
    """
    if not entries:
        raise Fault(f"The evaluation of model version {number} has no image.")
    version = find_version(session, number)
    evaluation_id: int | None = session.scalar(
        insert(Evaluation)
        .values(model_version_id=version.id, dataset_revision_id=revision_id, precision=precision)
        .on_conflict_do_nothing(index_elements=["model_version_id", "dataset_revision_id", "precision"])
        .returning(Evaluation.id)
    )
    if evaluation_id is None:
        return session.scalars(_evaluations(number, revision_id, precision)).one()
    rows = [
        {
            "evaluation_id": evaluation_id,
            "image_id": entry.image_id,
            "tp": entry.counts.tp,
            "fp": entry.counts.fp,
            "fn": entry.counts.fn,
            "tn": entry.counts.tn,
        }
        for entry in entries
    ]
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        session.execute(insert(EvaluationImage), rows[start : start + _ROWS_AT_ONCE])
    return evaluation_id


def find_evaluation(
    session: Session, *, number: int, revision_id: int, precision: str = SERVED_PRECISION
) -> dict[int, PixelCounts]:
    """Return the pixel counts of each validation image by its id; empty when the version was never evaluated there."""
    rows = session.execute(
        select(
            EvaluationImage.image_id, EvaluationImage.tp, EvaluationImage.fp, EvaluationImage.fn, EvaluationImage.tn
        ).where(EvaluationImage.evaluation_id.in_(_evaluations(number, revision_id, precision)))
    )
    return {image_id: PixelCounts(tp, fp, fn, tn) for image_id, tp, fp, fn, tn in rows}


def best_candidates(session: Session) -> list[Candidate]:
    """Return every version that was ever promoted, is not retired and still has its fp32 file, the best one first.

    Evaluations on different revisions are not the same exam: this order is good for choosing whom to score again on
    the present one, not for a verdict. A version without an evaluation is left out. A retired one is no yardstick:
    retiring it is how a person says that its scores are not to be trusted.
    """
    promoted = select(Promotion.model_version_id).where(
        Promotion.scope == DEFAULT_SCOPE, Promotion.action == LedgerAction.PROMOTED
    )
    latest = (
        select(func.max(Evaluation.id))
        .where(Evaluation.model_version_id == ModelVersion.id, Evaluation.precision == SERVED_PRECISION)
        .correlate(ModelVersion)
        .scalar_subquery()
    )
    union = EvaluationImage.tp + EvaluationImage.fp + EvaluationImage.fn
    iou = case((union == 0, 1.0), else_=cast(EvaluationImage.tp, Float) / func.nullif(union, 0))
    mean_iou = func.avg(iou)
    rows = session.execute(
        select(ModelVersion, DatasetRevision.name, DatasetRevision.number, mean_iou)
        .join(
            ModelVariant,
            (ModelVariant.model_version_id == ModelVersion.id)
            & (ModelVariant.precision == SERVED_PRECISION)
            & ModelVariant.key.is_not(None),
        )
        .join(Evaluation, Evaluation.id == latest)
        .join(EvaluationImage, EvaluationImage.evaluation_id == Evaluation.id)
        .join(DatasetRevision, DatasetRevision.id == Evaluation.dataset_revision_id)
        .where(ModelVersion.id.in_(promoted), ModelVersion.retired_at.is_(None))
        .group_by(ModelVersion.id, DatasetRevision.id)
        .order_by(mean_iou.desc(), ModelVersion.number.desc())
    )
    return [
        Candidate(version=version, mean_iou=mean, dataset=f"{name}@{revision}")
        for version, name, revision, mean in rows
    ]


def find_best_ever(session: Session) -> ModelVersion | None:
    """Return the version that no challenger may fall below by more than the margin; None before there is one.

    It is the last one whose promotion the gate called a new best (``is_new_best`` among the figures of its line), if
    it can still serve. Where the gate never did, as after promotions by hand, it is the first of `best_candidates`.
    """
    candidates = best_candidates(session)
    by_id = {candidate.version.id: candidate.version for candidate in candidates}
    newest_best = session.scalar(
        select(Promotion.model_version_id)
        .where(
            Promotion.scope == DEFAULT_SCOPE,
            Promotion.action == LedgerAction.PROMOTED,
            Promotion.figures["is_new_best"].as_boolean().is_(True),
            Promotion.model_version_id.in_(by_id),
        )
        .order_by(Promotion.id.desc())
        .limit(1)
    )
    if newest_best is not None:
        return by_id[newest_best]
    return candidates[0].version if candidates else None


def _evaluations(number: int, revision_id: int, precision: str) -> Select[int]:
    return (
        select(Evaluation.id)
        .join(ModelVersion, ModelVersion.id == Evaluation.model_version_id)
        .where(
            ModelVersion.number == number,
            Evaluation.dataset_revision_id == revision_id,
            Evaluation.precision == precision,
        )
    )
