"""The table of events: what happened that somebody may want to be told of."""

from __future__ import annotations

from enum import StrEnum

from sqlalchemy import Index, String
from sqlalchemy.orm import Mapped, mapped_column

from defectoscope.database.base import Base, CreatedAt, Id, Json, states


class Severity(StrEnum):
    """How much an event matters."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Event(Base):
    """Something that happened, in one sentence. Only ever appended to."""

    __tablename__ = "events"

    id: Mapped[Id]
    kind: Mapped[str] = mapped_column(String(64), comment="such as training.failed or model.promoted")
    severity: Mapped[Severity] = mapped_column(states(Severity))
    subject: Mapped[str] = mapped_column(comment="what it is about, such as training_run:6 or model:3")
    message: Mapped[str]
    details: Mapped[Json]
    created_at: Mapped[CreatedAt]

    __table_args__ = (Index("ix_events_kind", "kind", "id"),)
