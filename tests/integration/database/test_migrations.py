from __future__ import annotations

import subprocess
import sys

import pytest
from alembic import command
from sqlalchemy import create_engine, inspect, text

from defectoscope.database import Base
from defectoscope.database.migrate import migration_config, upgrade
from defectoscope.errors import DatabaseUnavailable

#: What PostgreSQL itself says of a schema, in text that can be compared.
CATALOGUE = {
    "columns": """
        SELECT table_name, column_name, data_type, character_maximum_length, is_nullable, column_default, is_identity
        FROM information_schema.columns WHERE table_schema = 'public' ORDER BY 1, 2""",
    "constraints": """
        SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid)
        FROM pg_constraint WHERE connamespace = 'public'::regnamespace ORDER BY 1, 2""",
    "indexes": "SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1, 2",
    "comments": """
        SELECT objoid::regclass::text, objsubid, description FROM pg_description
        WHERE classoid = 'pg_class'::regclass AND objoid IN (
            SELECT oid FROM pg_class WHERE relnamespace = 'public'::regnamespace
        ) ORDER BY 1, description""",
}


def _describe(url):
    engine = create_engine(url)
    with engine.connect() as connection:
        found = {
            name: [tuple(row) for row in connection.execute(text(query)) if "alembic_version" not in str(row[0])]
            for name, query in CATALOGUE.items()
        }
    engine.dispose()
    # The position of a column may differ; its comment may not.
    found["comments"] = sorted((table, comment) for table, _, comment in found["comments"])
    return found


def _tables(url):
    engine = create_engine(url)
    tables = set(inspect(engine).get_table_names())
    engine.dispose()
    return tables


def test_the_migrations_go_up_agree_with_the_models_go_down_and_up_again(database_url):
    config = migration_config(database_url)

    upgrade(database_url)
    command.check(config)
    first = _describe(database_url)
    command.downgrade(config, "base")
    after_downgrade = _tables(database_url)
    upgrade(database_url)

    assert after_downgrade == {"alembic_version"}
    assert _describe(database_url) == first


def test_the_migrated_schema_is_that_of_the_models_check_constraints_included(database_url, migrated_url):
    engine = create_engine(database_url)
    Base.metadata.create_all(engine)
    engine.dispose()

    migrated, created = _describe(migrated_url), _describe(database_url)

    assert migrated == created
    assert len(migrated["columns"]) > 100
    assert [row for row in migrated["constraints"] if "CHECK" in row[2]]


def test_two_migrations_at_once_wait_for_each_other(database_url):
    program = "import sys; from defectoscope.database.migrate import upgrade; upgrade(sys.argv[1])"

    migrations = [subprocess.Popen([sys.executable, "-c", program, database_url]) for _ in range(2)]

    assert [migration.wait(timeout=60) for migration in migrations] == [0, 0]
    assert set(Base.metadata.tables) < _tables(database_url)


def test_a_migration_of_a_server_that_is_away_says_so():
    with pytest.raises(DatabaseUnavailable):
        upgrade("postgresql+psycopg://nobody@127.0.0.1:1/none")
