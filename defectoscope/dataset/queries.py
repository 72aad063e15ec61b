"""What people ask of dataset revisions. Read only."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from defectoscope.database import DatasetRevision


def list_revisions(
    session: Session, *, before: int | None = None, limit: int = 50, name: str | None = None
) -> Sequence[DatasetRevision]:
    """Return revisions, newest first, those with an id below ``before``; of one dataset when it is named."""
    statement = select(DatasetRevision)
    if before is not None:
        statement = statement.where(DatasetRevision.id < before)
    if name is not None:
        statement = statement.where(DatasetRevision.name == name)
    return session.scalars(statement.order_by(DatasetRevision.id.desc()).limit(limit)).all()
