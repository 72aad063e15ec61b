"""Brings a database to the schema of this code. The migrations themselves lie in `migrations/` at the top level."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy.exc import OperationalError

from defectoscope.errors.installation import ComponentMissing, DatabaseUnavailable

#: The checkout this package is part of. An installed wheel holds the core alone and cannot migrate.
_CHECKOUT = Path(__file__).resolve().parents[2]


def migration_config(database_url: str) -> Config:
    """Return Alembic's configuration for a database.

    Raises:
        ComponentMissing: `migrations/` is not beside this package.
    """
    if not (_CHECKOUT / "migrations" / "env.py").is_file():
        raise ComponentMissing("The migrations are not installed here; run this from a checkout or the migrate image.")
    config = Config(toml_file=_CHECKOUT / "pyproject.toml")
    config.set_main_option("script_location", str(_CHECKOUT / "migrations"))
    config.attributes["database_url"] = database_url
    return config


def upgrade(database_url: str, *, revision: str = "head") -> None:
    """Apply every migration that is missing, up to a revision; concurrent callers wait for each other.

    Raises:
        DatabaseUnavailable: PostgreSQL does not answer.
    """
    try:
        command.upgrade(migration_config(database_url), revision)
    except OperationalError as exc:
        raise DatabaseUnavailable(f"The database does not answer: {exc.orig}".strip()) from exc


def empty(database_url: str) -> None:
    """Take every migration back: all tables go, with all that is in them.

    Raises:
        DatabaseUnavailable: PostgreSQL does not answer.
    """
    try:
        command.downgrade(migration_config(database_url), "base")
    except OperationalError as exc:
        raise DatabaseUnavailable(f"The database does not answer: {exc.orig}".strip()) from exc
