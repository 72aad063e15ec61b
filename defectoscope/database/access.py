"""Tables of access control: API tokens, and the audit log of what was done with them."""

from __future__ import annotations

from enum import StrEnum

from sqlalchemy import ForeignKey, Index, SmallInteger, String
from sqlalchemy.orm import Mapped, mapped_column

from defectoscope.database.base import Base, CreatedAt, Id, Moment, Sha256, states


class AccessScope(StrEnum):
    """What a caller may do, from least to most; each includes those before it."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    TRAINER = "trainer"
    ADMIN = "admin"

    def includes(self, other: AccessScope) -> bool:
        """Return whether whoever has this scope may do what needs the other one."""
        order = list(AccessScope)
        return order.index(self) >= order.index(other)


class ApiToken(Base):
    """A token as the server knows it: never its text, only the hash of its secret. Revoked, but never deleted."""

    __tablename__ = "api_tokens"

    id: Mapped[Id]
    name: Mapped[str] = mapped_column(comment="of a person or a program; the ledger and the audit log name it")
    scope: Mapped[AccessScope] = mapped_column(states(AccessScope))
    sha256: Mapped[Sha256] = mapped_column(comment="of the secret")
    created_by: Mapped[str]
    created_at: Mapped[CreatedAt]
    expires_at: Mapped[Moment | None]
    revoked_at: Mapped[Moment | None]
    last_used_at: Mapped[Moment | None] = mapped_column(comment="to the minute")


class AuditEntry(Base):
    """Something that somebody asked to be changed. Added before it is done; its outcome is set once; then it stays."""

    __tablename__ = "audit_entries"

    id: Mapped[Id]
    created_at: Mapped[CreatedAt]
    token_id: Mapped[int | None] = mapped_column(ForeignKey("api_tokens.id"), comment="null where no token was needed")
    actor: Mapped[str] = mapped_column(comment="name of the token")
    action: Mapped[str] = mapped_column(comment="method and route, such as POST /v1/jobs/{job_id}/cancel")
    subject: Mapped[str | None] = mapped_column(comment="what it is about, such as jobs/12")
    request_id: Mapped[str] = mapped_column(String(64))
    address: Mapped[str | None] = mapped_column(comment="where the request came from")
    status: Mapped[int | None] = mapped_column(SmallInteger, comment="HTTP status; null: no answer was given")
    error_code: Mapped[str | None] = mapped_column(String(64))

    __table_args__ = (Index("ix_audit_entries_token_id_id", "token_id", "id"),)
