"""What people ask of model versions. Read only; scores are derived from stored pixel counts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from defectoscope.database import (
    Champion,
    DatasetRevision,
    Evaluation,
    EvaluationImage,
    ModelVariant,
    ModelVersion,
)
from defectoscope.errors import ModelVersionNotFound
from defectoscope.registry.versions import DEFAULT_SCOPE
from defectoscope.segmentation import ModelContract, PixelCounts


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelView:
    """A model version with its files and how it did on the validation side of what it was trained on."""

    version: ModelVersion
    contract: ModelContract
    is_champion: bool
    dataset: str | None
    variants: Sequence[ModelVariant]
    #: One for each validation image; empty when the version was never evaluated there.
    validation: Sequence[PixelCounts]


def view_model(session: Session, number: int) -> ModelView:
    """Return one model version.

    Raises:
        ModelVersionNotFound: there is none with this number.
    """
    views = _views(session, _versions().where(ModelVersion.number == number))
    if not views:
        raise ModelVersionNotFound(f"There is no model version {number}.", number=number)
    return views[0]


def list_models(session: Session, *, before: int | None = None, limit: int = 50) -> list[ModelView]:
    """Return model versions, newest first, those with a number below ``before``."""
    statement = _versions()
    if before is not None:
        statement = statement.where(ModelVersion.number < before)
    return _views(session, statement.order_by(ModelVersion.number.desc()).limit(limit))


def _versions() -> Select[ModelVersion, DatasetRevision | None, Champion | None]:
    return (
        select(ModelVersion, DatasetRevision, Champion)
        .outerjoin(DatasetRevision, DatasetRevision.id == ModelVersion.dataset_revision_id)
        .outerjoin(Champion, (Champion.model_version_id == ModelVersion.id) & (Champion.scope == DEFAULT_SCOPE))
    )


def _views(
    session: Session, statement: Select[ModelVersion, DatasetRevision | None, Champion | None]
) -> list[ModelView]:
    rows = session.execute(statement).all()
    ids = [version.id for version, _, _ in rows]
    variants: dict[int, list[ModelVariant]] = defaultdict(list)
    for variant in session.scalars(
        select(ModelVariant).where(ModelVariant.model_version_id.in_(ids)).order_by(ModelVariant.id)
    ):
        variants[variant.model_version_id].append(variant)
    validation = _validation_counts(session, ids)
    return [
        ModelView(
            version=version,
            contract=ModelContract.from_metadata(version.contract),
            is_champion=champion is not None,
            dataset=f"{revision.name}@{revision.number}" if revision else None,
            variants=variants[version.id],
            validation=validation[version.id],
        )
        for version, revision, champion in rows
    ]


def _validation_counts(session: Session, version_ids: Sequence[int]) -> dict[int, list[PixelCounts]]:
    """Return the pixel counts of each version's latest evaluation on the revision it was trained on."""
    latest = (
        select(func.max(Evaluation.id))
        .join(ModelVersion, ModelVersion.id == Evaluation.model_version_id)
        .where(
            Evaluation.model_version_id.in_(version_ids),
            Evaluation.dataset_revision_id == ModelVersion.dataset_revision_id,
        )
        .group_by(Evaluation.model_version_id)
    )
    rows = session.execute(
        select(
            Evaluation.model_version_id,
            EvaluationImage.tp,
            EvaluationImage.fp,
            EvaluationImage.fn,
            EvaluationImage.tn,
        )
        .join(EvaluationImage, EvaluationImage.evaluation_id == Evaluation.id)
        .where(Evaluation.id.in_(latest))
    )
    counts: dict[int, list[PixelCounts]] = defaultdict(list)
    for version_id, tp, fp, fn, tn in rows:
        counts[version_id].append(PixelCounts(tp, fp, fn, tn))
    return counts
