"""Finds model versions: by number, and the one in service. It changes nothing."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from defectoscope.database import Champion, ModelVariant, ModelVersion
from defectoscope.errors.models import ModelNotReady, ModelVariantUnavailable, ModelVersionNotFound, ModelWeightsDropped

#: The only scope so far: one champion for the whole installation.
DEFAULT_SCOPE = "default"

#: The precision that every served version has; the others are published beside it or not at all.
SERVED_PRECISION = "fp32"


def find_version(session: Session, number: int) -> ModelVersion:
    """Return the version with a number.

    Raises:
        ModelVersionNotFound: there is none.
    """
    version = session.scalar(select(ModelVersion).where(ModelVersion.number == number))
    if version is None:
        raise ModelVersionNotFound(f"There is no model version {number}.", number=number)
    return version


def find_champion(session: Session) -> ModelVersion:
    """Return the version in service.

    Raises:
        ModelNotReady: none was promoted yet.
    """
    version = champion_or_none(session)
    if version is None:
        raise ModelNotReady
    return version


def champion_or_none(session: Session) -> ModelVersion | None:
    """Return the version in service, or None before the first promotion."""
    return session.scalar(
        select(ModelVersion)
        .join(Champion, Champion.model_version_id == ModelVersion.id)
        .where(Champion.scope == DEFAULT_SCOPE)
    )


def find_file(session: Session, number: int, precision: str) -> ModelVariant:
    """Return the stored file of a version in one precision: a variant with a key.

    Raises:
        ModelVersionNotFound: there is no such version.
        ModelWeightsDropped: its files were dropped.
        ModelVariantUnavailable: it has no such variant, or the variant was not published; the reason is in the message.
    """
    version = find_version(session, number)
    if version.weights_dropped_at is not None:
        raise ModelWeightsDropped(f"The files of model version {number} were dropped.", number=number)
    variant = session.scalar(
        select(ModelVariant).where(ModelVariant.model_version_id == version.id, ModelVariant.precision == precision)
    )
    if variant is None or variant.key is None:
        why = "" if variant is None or variant.reason is None else f" It was not published: {variant.reason}"
        raise ModelVariantUnavailable(
            f"Model version {number} has no {precision} file.{why}", number=number, precision=precision
        )
    return variant
