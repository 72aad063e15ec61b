"""Tokens in the database: made, looked up, listed, revoked. The text of a token leaves here once, when it is made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from defectoscope.access.tokens import Token, make_secret
from defectoscope.database import AccessScope, ApiToken
from defectoscope.errors.access import TokenExpired, TokenNotFound, TokenRevoked, TokenUnknown

#: The last use of a token is written down so seldom that busy tokens cost no writes.
LAST_USE_EVERY: Final = timedelta(minutes=1)

_NO_HASH: Final = "0" * 64


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls: the token's id, name and scope. Without access control there is no token."""

    token_id: int | None
    name: str
    scope: AccessScope


@dataclass(frozen=True, slots=True)
class NewToken:
    """A token that was just made: its row, and its text, which nobody can ask for again."""

    row: ApiToken
    text: str = field(repr=False)


def create_token(
    session: Session, *, name: str, scope: AccessScope, created_by: str, expires_in: timedelta | None = None
) -> NewToken:
    """Make a token.

    Args:
        session: of the transaction.
        name: of the person or the program that will hold it.
        scope: what it allows.
        created_by: who makes it.
        expires_in: how long it is valid; None for ever.
    """
    secret = make_secret()
    row = ApiToken(
        name=name,
        scope=scope,
        # The hash covers the secret alone, which no other token shares, so the id may come from the database.
        sha256=Token(1, secret).sha256,
        created_by=created_by,
        expires_at=None if expires_in is None else func.now() + expires_in,
    )
    session.add(row)
    session.flush()
    session.refresh(row)
    return NewToken(row, Token(row.id, secret).text)


def authenticate(session: Session, token: Token) -> Principal:
    """Return who holds a token, and note that it was used.

    Raises:
        TokenUnknown: there is no such token, or its secret is another one.
        TokenRevoked, TokenExpired: there is, and it was right once.
    """
    # Clocks of several machines differ; that of the database is one.
    found = session.execute(select(ApiToken, func.now()).where(ApiToken.id == token.id)).one_or_none()
    row, now = found if found is not None else (None, None)
    if not token.is_of(_NO_HASH if row is None else row.sha256) or row is None or now is None:
        raise TokenUnknown
    if row.revoked_at is not None:
        raise TokenRevoked(f"The API token {row.id} was revoked.", token_id=row.id)
    if row.expires_at is not None and row.expires_at <= now:
        raise TokenExpired(f"The API token {row.id} has expired.", token_id=row.id)
    if row.last_used_at is None or now - row.last_used_at > LAST_USE_EVERY:
        row.last_used_at = now
    return Principal(row.id, row.name, row.scope)


def list_tokens(session: Session, *, before: int | None = None, limit: int = 50) -> Sequence[ApiToken]:
    """Return tokens, newest first, those with an id below ``before``."""
    statement = select(ApiToken)
    if before is not None:
        statement = statement.where(ApiToken.id < before)
    return session.scalars(statement.order_by(ApiToken.id.desc()).limit(limit)).all()


def view_token(session: Session, token_id: int) -> ApiToken:
    """Return a token.

    Raises:
        TokenNotFound: there is none with this id.
    """
    row = session.get(ApiToken, token_id)
    if row is None:
        raise TokenNotFound(f"There is no API token {token_id}.", token_id=token_id)
    return row


def revoke_token(session: Session, token_id: int) -> ApiToken:
    """End a token for good; asked again, it stays revoked since the first time.

    Raises:
        TokenNotFound: there is none with this id.
    """
    session.execute(
        update(ApiToken).where(ApiToken.id == token_id, ApiToken.revoked_at.is_(None)).values(revoked_at=func.now())
    )
    return view_token(session, token_id)
