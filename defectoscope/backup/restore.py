"""Reads a backup back: objects that the bucket lacks, then the tables, into an empty database."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import psycopg
from psycopg import sql
from sqlalchemy import Connection, text

from defectoscope.backup.manifest import Manifest, TableFile, keys_path, object_path, read_manifest, table_path
from defectoscope.database import Database
from defectoscope.database.migrate import empty, upgrade
from defectoscope.errors.backup import BackupInvalid, DatabaseNotEmpty
from defectoscope.objects import kind_of
from defectoscope.storage import Storage, hash_file

_THREADS = 8
_PART_BYTES = 2**20
#: What an object is told to be. The API says its own when it sends one.
_MEDIA_TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".json": "application/json", ".html": "text/html"}
_OTHER = "application/octet-stream"

_FOREIGN_KEYS = text("""
    SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint
    WHERE contype = 'f' AND connamespace = 'public'::regnamespace ORDER BY 1, 2
""")
_IDENTITIES = text("""
    SELECT table_name, column_name FROM information_schema.columns
    WHERE table_schema = 'public' AND is_identity = 'YES' ORDER BY 1, 2
""")
_TABLES = text("""
    SELECT relname FROM pg_class
    WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND relname <> 'alembic_version' ORDER BY 1
""")


def restore_objects(
    *,
    storage: Storage,
    bucket: str,
    directory: Path,
    on_progress: Callable[[int, int], None] | None = None,
) -> int:
    """Put back every object of a backup that the bucket lacks; what is there stays as it is.

    Args:
        storage: our own bucket.
        bucket: its name, which must be that of the backup: addresses in the rows name it.
        directory: of the backup.
        on_progress: called with the objects looked at so far and all there are.

    Returns:
        How many were put back.

    Raises:
        BackupInvalid: this is no whole backup, or one of another bucket.
    """
    manifest = read_manifest(directory)
    if manifest.bucket != bucket:
        raise BackupInvalid(
            f"The backup is of a bucket called {manifest.bucket}, and addresses in its rows name it; this one is "
            f"{bucket}. Set DEFECTOSCOPE_STORAGE__BUCKET to that name."
        )
    if hash_file(keys_path(directory)) != manifest.objects_sha256:
        raise BackupInvalid(f"The list of objects in {directory} is not the one that was written.")
    gone = set(manifest.gone)
    keys = [key for key in keys_path(directory).read_text().splitlines() if key not in gone]
    if any(kind_of(key) is None for key in keys):
        raise BackupInvalid(f"The list of objects in {directory} names something that is no object of ours.")
    put_back = 0
    with ThreadPoolExecutor(_THREADS) as threads:
        for done, was_put in enumerate(threads.map(lambda key: _put_back(storage, directory, key), keys), start=1):
            put_back += was_put
            if on_progress is not None:
                on_progress(done, len(keys))
    return put_back


def _put_back(storage: Storage, directory: Path, key: str) -> bool:
    path = object_path(directory, key)
    if not path.is_file():
        raise BackupInvalid(f"The backup lacks the object {key}, which it names.")
    if storage.exists(key):
        return False
    storage.put_file(key, path, content_type=_MEDIA_TYPES.get(path.suffix, _OTHER))
    return True


def restore_database(*, database_url: str, directory: Path, statement_timeout_s: int = 6 * 3600) -> Manifest:
    """Fill an empty database with the tables of a backup, and migrate it to this release.

    The rows are written in one transaction: whoever dies in between leaves an empty database, which may be filled
    again. No process of the system may run meanwhile.

    Args:
        database_url: of a database without a row of ours; its tables, if it has any, are made anew.
        directory: of the backup. Its objects should be restored before.
        statement_timeout_s: how long the largest table may take, in seconds.

    Returns:
        What the backup says of itself.

    Raises:
        BackupInvalid: this is no whole backup, or its files are not those that were written.
        DatabaseNotEmpty: there are rows.
    """
    manifest = read_manifest(directory)
    for name, table in manifest.tables.items():
        if not table_path(directory, name).is_file() or hash_file(table_path(directory, name)) != table.sha256:
            raise BackupInvalid(f"The rows of {name} in {directory} are not those that were written.")
    database = Database(database_url, pool_size=1, statement_timeout_s=statement_timeout_s)
    try:
        if _check_empty(database):
            empty(database_url)
        # Its own schema, whatever release this is; the rows are migrated as those of a running system are.
        upgrade(database_url, revision=manifest.revision)
        with database.transaction() as session:
            connection = session.connection()
            # Checked all together at the end, since rows point at each other across tables in any order.
            foreign_keys = connection.execute(_FOREIGN_KEYS).all()
            for table_name, constraint, _ in foreign_keys:
                connection.execute(text(f'ALTER TABLE {table_name} DROP CONSTRAINT "{constraint}"'))
            for name, table in manifest.tables.items():
                _fill_table(connection, name, table, table_path(directory, name))
            for table_name, constraint, definition in foreign_keys:
                connection.execute(text(f'ALTER TABLE {table_name} ADD CONSTRAINT "{constraint}" {definition}'))
            _go_on_counting(connection)
        upgrade(database_url)
    finally:
        database.close()
    return manifest


def _check_empty(database: Database) -> bool:
    """Refuse a database with rows; say whether it has tables.

    Raises:
        DatabaseNotEmpty: there are rows.
    """
    with database.transaction() as session:
        names = session.scalars(_TABLES).all()
        for name in names:
            if session.scalar(text(f'SELECT EXISTS (SELECT FROM public."{name}")')):  # noqa: S608 -- from the catalogue
                raise DatabaseNotEmpty(
                    f"The database has rows in {name}; a backup is restored into an empty one.", table=name
                )
    return bool(names)


def _fill_table(connection: Connection, name: str, table: TableFile, path: Path) -> None:
    statement = sql.SQL("COPY public.{} ({}) FROM STDIN").format(
        sql.Identifier(name), sql.SQL(", ").join(map(sql.Identifier, table.columns))
    )
    driver = cast("psycopg.Connection", connection.connection.driver_connection)
    with path.open("rb") as file, driver.cursor() as cursor, cursor.copy(statement) as copy:
        while part := file.read(_PART_BYTES):
            copy.write(part)


def _go_on_counting(connection: Connection) -> None:
    """Have every new row get a number above those that are there."""
    for table, column in connection.execute(_IDENTITIES).all():
        connection.execute(
            text(
                f"SELECT setval(pg_get_serial_sequence('public.{table}', '{column}'), coalesce(max({column}), 1),"  # noqa: S608
                f" max({column}) IS NOT NULL) FROM public.{table}"
            )
        )
