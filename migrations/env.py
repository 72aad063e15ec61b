"""Runs migrations, `alembic upgrade head`, against the database of the settings."""

from __future__ import annotations

from alembic import context
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from defectoscope.database import Base
from defectoscope.settings import load_settings, required

#: Whoever starts second waits here until the first has migrated. The number is arbitrary and ours.
_ADVISORY_LOCK = 5_701_312


def _database_url() -> str:
    """Return the URL that a caller put into the configuration, or else the setting."""
    configured = context.config.attributes.get("database_url")
    if configured is not None:
        return str(configured)
    return required(load_settings().database.url, "database.url").get_secret_value()


def _migrate() -> None:
    engine = create_engine(_database_url(), poolclass=NullPool)
    with engine.connect() as connection:
        # A migration that cannot get its lock soon must not queue every reader behind itself.
        connection.execute(text("SET lock_timeout = '10s'"))
        connection.execute(text("SET statement_timeout = '15min'"))
        connection.execute(text(f"SELECT pg_advisory_lock({_ADVISORY_LOCK})"))
        connection.commit()
        context.configure(connection=connection, target_metadata=Base.metadata, compare_server_default=True)
        with context.begin_transaction():
            context.run_migrations()
        connection.execute(text(f"SELECT pg_advisory_unlock({_ADVISORY_LOCK})"))
        connection.commit()


_migrate()
