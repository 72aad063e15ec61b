"""Takes a unique key from a table, and gives it back."""

from __future__ import annotations

from contextlib import contextmanager

import psycopg
from sqlalchemy import make_url

_KEY = """
    SELECT pg_class.relname, pg_get_indexdef(pg_class.oid), pg_constraint.oid IS NOT NULL
    FROM pg_index JOIN pg_class ON pg_class.oid = pg_index.indexrelid
    LEFT JOIN pg_constraint ON pg_constraint.conindid = pg_class.oid AND pg_constraint.contype = 'u'
    WHERE pg_index.indrelid = %s::regclass AND pg_index.indisunique AND strpos(pg_get_indexdef(pg_class.oid), %s) > 0
"""


@contextmanager
def without_unique_key(url, table, columns):
    """Drop the unique key over some columns; afterwards the table is emptied, and has its key again."""
    server = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(server, autocommit=True) as connection:
        name, definition, is_constraint = connection.execute(_KEY, (table, f"({columns})")).fetchone()
        of_table = f"ALTER TABLE {table}"
        connection.execute((f"{of_table} DROP CONSTRAINT {name}" if is_constraint else f"DROP INDEX {name}").encode())
        try:
            yield
        finally:
            connection.execute(f"TRUNCATE {table} CASCADE".encode())
            connection.execute(definition.encode())
            if is_constraint:
                connection.execute(f"{of_table} ADD CONSTRAINT {name} UNIQUE USING INDEX {name}".encode())
