"""The first token, made where nobody can ask the API for one yet: straight in the database, by whoever may write there.

`defectoscope up` keeps the one that it makes in its data directory, readable by its owner alone, so that every terminal
of that account just works; `defectoscope tokens create --database` prints one, for an API that runs in containers.
"""

from __future__ import annotations

import getpass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, cast

from defectoscope.cli.operating import note_in_audit

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from defectoscope.access.store import NewToken
    from defectoscope.client.wire import ApiToken
    from defectoscope.database import Database

#: Where `up` keeps its token, below the data directory.
KEPT_IN = Path("secrets", "admin-token")
_CREATED = 201


def create_in_database(*, name: str, scope: str, days: int | None) -> ApiToken:
    """Make a token in the database of the settings.

    Raises:
        SettingMissing: its URL is not set.
        DatabaseUnavailable: it does not answer.
    """
    from defectoscope.connect import open_database
    from defectoscope.settings import load_settings

    database = open_database(load_settings())
    try:
        with database.transaction() as session:
            made = _make(session, name=name, scope=scope, days=days, action="defectoscope tokens create --database")
    finally:
        database.close()
    row = made.row
    moments = {
        key: None if (moment := getattr(row, key)) is None else moment.isoformat()
        for key in ("created_at", "expires_at", "revoked_at", "last_used_at")
    }
    shown = {"id": row.id, "name": row.name, "scope": row.scope.value, "created_by": row.created_by}
    return cast("ApiToken", {**shown, **moments, "token": made.text})


def admin_token(database: Database, *, data_dir: Path) -> tuple[str, bool]:
    """Return the token of this machine, as it is kept or a new one.

    Args:
        database: the one that has to know it; a kept token that it does not know, or not any more, is replaced.
        data_dir: directory of `up`.

    Returns:
        The token's text, and whether it was made just now.
    """
    from defectoscope.access.store import authenticate
    from defectoscope.access.tokens import read_token
    from defectoscope.embedded.private_files import private_directory, write_private
    from defectoscope.errors.access import NotAuthenticated

    kept = data_dir / KEPT_IN
    with database.transaction() as session:
        if kept.exists():
            try:
                token = read_token(kept.read_text(encoding="utf-8").strip())
                authenticate(session, token)
            except NotAuthenticated:
                pass
            else:
                return token.text, False
        made = _make(session, name=_account(), scope="admin", days=None, action="defectoscope up")
    private_directory(kept.parent)
    write_private(kept, made.text + "\n")
    return made.text, True


def _make(session: Session, *, name: str, scope: str, days: int | None, action: str) -> NewToken:
    from defectoscope.access.store import create_token
    from defectoscope.database import AccessScope

    account = _account()
    made = create_token(
        session,
        name=name,
        scope=AccessScope(scope),
        created_by=account,
        expires_in=None if days is None else timedelta(days=days),
    )
    note_in_audit(session, actor=account, action=action, subject=f"tokens/{made.row.id}", status=_CREATED)
    return made


def _account() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        # An account without a name, as some containers have.
        return "local"
