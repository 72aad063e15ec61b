"""Tables of webhooks: who wants to be told of which events, and what is owed to whom."""

from __future__ import annotations

from enum import StrEnum

from sqlalchemy import ForeignKey, Index, Integer, SmallInteger, String, UniqueConstraint, func, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from defectoscope.database.base import Base, CreatedAt, Id, Moment, states


class DeliveryState(StrEnum):
    """Where the delivery of an event to a webhook is. `dead` is tried no more until somebody asks for it."""

    PENDING = "pending"
    DELIVERED = "delivered"
    DEAD = "dead"


class Webhook(Base):
    """An address of somebody else's that wants to be told of events.

    The secret is kept as it is, not as a hash: every delivery is signed with it. It leaves the database for that alone.
    """

    __tablename__ = "webhooks"

    id: Mapped[Id]
    name: Mapped[str | None] = mapped_column(comment="for people")
    url: Mapped[str]
    kinds: Mapped[list[str]] = mapped_column(ARRAY(String(64)), comment="of events: model.promoted, model.* or *")
    secret: Mapped[str] = mapped_column(comment="signs deliveries; shown once, never logged")
    previous_secret: Mapped[str | None] = mapped_column(comment="signs beside the secret until it ends")
    previous_secret_until: Mapped[Moment | None]
    disabled_at: Mapped[Moment | None] = mapped_column(comment="nothing is sent and nothing becomes owed while set")
    disabled_reason: Mapped[str | None] = mapped_column(comment="null: somebody disabled it, or it is not")
    failures: Mapped[int] = mapped_column(Integer, server_default="0", comment="attempts in a row that failed")
    available_at: Mapped[Moment] = mapped_column(
        server_default=func.now(), comment="no delivery of it is claimed before: one is in work, or it rests"
    )
    created_at: Mapped[CreatedAt]


class WebhookDelivery(Base):
    """One event owed to one webhook, written in the transaction of the event."""

    __tablename__ = "webhook_deliveries"

    id: Mapped[Id]
    webhook_id: Mapped[int] = mapped_column(ForeignKey("webhooks.id", ondelete="CASCADE"))
    event_id: Mapped[int] = mapped_column(ForeignKey("events.id", ondelete="CASCADE"))
    state: Mapped[DeliveryState] = mapped_column(states(DeliveryState), server_default=DeliveryState.PENDING.value)
    attempts: Mapped[int] = mapped_column(Integer, server_default="0", comment="counted when an attempt begins")
    next_attempt_at: Mapped[Moment] = mapped_column(server_default=func.now())
    lease_owner: Mapped[str | None] = mapped_column(comment="host and process that sends it, for people")
    lease_token: Mapped[int] = mapped_column(server_default="0", comment="fences off a sender whose lease ran out")
    lease_expires_at: Mapped[Moment | None]
    last_status: Mapped[int | None] = mapped_column(SmallInteger, comment="HTTP status of the last answer")
    last_error: Mapped[str | None] = mapped_column(comment="why the last attempt failed; never what was answered")
    finished_at: Mapped[Moment | None]
    created_at: Mapped[CreatedAt]

    __table_args__ = (
        # Exactly one for each event and webhook; the event first, so that a deleted event finds its deliveries.
        UniqueConstraint("event_id", "webhook_id"),
        Index("ix_webhook_deliveries_webhook_id_id", "webhook_id", "id"),
        # What is not done with: few rows, whatever was delivered before.
        Index(
            "ix_webhook_deliveries_open",
            *("webhook_id", "state", "next_attempt_at", "id"),
            postgresql_where=text("state <> 'delivered'"),
        ),
        Index("ix_webhook_deliveries_finished_at", "finished_at", postgresql_where=text("finished_at IS NOT NULL")),
    )
