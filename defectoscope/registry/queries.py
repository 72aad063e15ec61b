"""What people ask of model versions. Read only; scores are derived from stored pixel counts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

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
from defectoscope.errors.models import ModelVersionNotFound
from defectoscope.registry.history import LedgerLine, lines_of
from defectoscope.registry.versions import DEFAULT_SCOPE, SERVED_PRECISION
from defectoscope.segmentation import ModelContract, PixelCounts


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationView:
    """How a version did on a revision.

    Attributes:
        id: rises from evaluation to evaluation.
        dataset: the revision, such as ``steel@4``.
        precision: of the file that was scored.
        created_at: when it was recorded, UTC.
        counts: one for each validation image.
    """

    id: int
    dataset: str
    precision: str
    created_at: datetime
    counts: Sequence[PixelCounts]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelView:
    """A model version with its files and its evaluations.

    Attributes:
        version: its row.
        contract: what its files say.
        is_champion: whether it is in service.
        dataset: the revision it was trained on, such as ``steel@1``; None for one that was imported.
        variants: its files, and what was not published.
        validation: the latest evaluation of the served file; None where there is none.
    """

    version: ModelVersion
    contract: ModelContract
    is_champion: bool
    dataset: str | None
    variants: Sequence[ModelVariant]
    validation: EvaluationView | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelDetails:
    """Everything about one version.

    Attributes:
        view: what lists show too.
        evaluations: on whatever revision and in whatever precision, oldest first.
        ledger: every decision about it, oldest first.
    """

    view: ModelView
    evaluations: Sequence[EvaluationView]
    ledger: Sequence[LedgerLine]


def view_model(session: Session, number: int) -> ModelDetails:
    """Return one model version.

    Raises:
        ModelVersionNotFound: there is none with this number.
    """
    views = _views(session, _versions().where(ModelVersion.number == number))
    if not views:
        raise ModelVersionNotFound(f"There is no model version {number}.", number=number)
    [view] = views
    evaluations = _evaluations(session, select(Evaluation.id).where(Evaluation.model_version_id == view.version.id))
    return ModelDetails(view=view, evaluations=evaluations.get(view.version.id, []), ledger=lines_of(session, number))


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
    latest = (
        select(func.max(Evaluation.id))
        .where(Evaluation.model_version_id.in_(ids), Evaluation.precision == SERVED_PRECISION)
        .group_by(Evaluation.model_version_id)
    )
    validation = _evaluations(session, latest)
    return [
        ModelView(
            version=version,
            contract=ModelContract.from_metadata(version.contract),
            is_champion=champion is not None,
            dataset=f"{revision.name}@{revision.number}" if revision else None,
            variants=variants[version.id],
            validation=next(iter(validation.get(version.id, [])), None),
        )
        for version, revision, champion in rows
    ]


def _evaluations(session: Session, ids: Select[int]) -> dict[int, list[EvaluationView]]:
    """Return evaluations by the id of their version, oldest first."""
    counts: dict[int, list[PixelCounts]] = defaultdict(list)
    for evaluation_id, tp, fp, fn, tn in session.execute(
        select(
            EvaluationImage.evaluation_id,
            EvaluationImage.tp,
            EvaluationImage.fp,
            EvaluationImage.fn,
            EvaluationImage.tn,
        ).where(EvaluationImage.evaluation_id.in_(ids))
    ):
        counts[evaluation_id].append(PixelCounts(tp, fp, fn, tn))
    views: dict[int, list[EvaluationView]] = defaultdict(list)
    for evaluation, revision in session.execute(
        select(Evaluation, DatasetRevision)
        .join(DatasetRevision, DatasetRevision.id == Evaluation.dataset_revision_id)
        .where(Evaluation.id.in_(ids))
        .order_by(Evaluation.id)
    ):
        views[evaluation.model_version_id].append(
            EvaluationView(
                id=evaluation.id,
                dataset=f"{revision.name}@{revision.number}",
                precision=evaluation.precision,
                created_at=evaluation.created_at,
                counts=counts[evaluation.id],
            )
        )
    return views
