"""What all walks together came to, for the figures."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from defectoscope.database import ObjectCollection


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """Sums over every walk, and when the last one came to its end (seconds since 1970; None before the first)."""

    objects: int
    bytes: int
    last_finished_s: float | None


def sum_collections(session: Session) -> Collected:
    """Return what was deleted so far. There is a row for each day, so all of them are read."""
    objects, size_bytes, last_finished_s = session.execute(
        select(
            func.coalesce(func.sum(ObjectCollection.deleted_objects), 0),
            func.coalesce(func.sum(ObjectCollection.deleted_bytes), 0),
            func.extract("epoch", func.max(ObjectCollection.finished_at)),
        )
    ).one()
    return Collected(
        objects=int(objects),
        bytes=int(size_bytes),
        last_finished_s=None if last_finished_s is None else float(last_finished_s),
    )
