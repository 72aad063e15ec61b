"""Tokens for tests that call the API."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from defectoscope.access.store import create_token
from defectoscope.database import AccessScope, Database


@contextmanager
def opened(url: str) -> Iterator[Database]:
    """A database for as long as it is needed."""
    database = Database(url, pool_size=1)
    try:
        yield database
    finally:
        database.close()


def make_token(
    url: str, *, scope: AccessScope = AccessScope.ADMIN, name: str = "ann", expires_in: timedelta | None = None
) -> str:
    """Return the text of a new token that the database at an address knows."""
    with opened(url) as database, database.transaction() as session:
        return create_token(session, name=name, scope=scope, created_by="test", expires_in=expires_in).text


def bearer(token: str) -> dict[str, str]:
    """Return the header that carries a token."""
    return {"Authorization": f"Bearer {token}"}
