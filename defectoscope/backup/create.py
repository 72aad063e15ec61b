"""Writes a backup: the tables under one snapshot, then the objects that their rows point at."""

from __future__ import annotations

import hashlib
import re
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import cast

import psycopg
from psycopg import sql
from sqlalchemy import Connection, text

from defectoscope.backup.manifest import (
    Manifest,
    TableFile,
    keys_path,
    object_path,
    table_path,
    write_manifest,
)
from defectoscope.database import Database
from defectoscope.errors.backup import BackupInvalid
from defectoscope.errors.storage import ObjectNotFound, StorageFault
from defectoscope.objects import keeping_all, kind_of, list_pointed
from defectoscope.storage import Storage, hash_file

#: Objects copied at once.
_THREADS = 8
#: Keys whose copies may wait for each other.
_AHEAD = 256

_TABLES = text("""
    SELECT tables.relname, array_agg(columns.attname::text ORDER BY columns.attnum)
    FROM pg_class AS tables
    JOIN pg_attribute AS columns ON columns.attrelid = tables.oid AND columns.attnum > 0 AND NOT columns.attisdropped
    WHERE tables.relnamespace = 'public'::regnamespace AND tables.relkind = 'r' AND tables.relname <> 'alembic_version'
    GROUP BY tables.relname ORDER BY tables.relname
""")
#: Kinds whose key is not the hash of what they hold.
_NAMED_OTHERWISE = re.compile(r"overlays/|training/")


def create_backup(
    *,
    database: Database,
    storage: Storage,
    bucket: str,
    directory: Path,
    on_progress: Callable[[int, int], None] | None = None,
) -> Manifest:
    """Write a backup of everything. Work may go on meanwhile; what is committed later is not in it.

    Args:
        database: whose tables are read; its statement timeout must allow for the largest of them.
        storage: our own bucket.
        bucket: its name.
        directory: new or empty.
        on_progress: called with the objects copied so far and all there are.

    Returns:
        What the backup says of itself.

    Raises:
        BackupInvalid: the directory holds something.
        ObjectNotFound: an object that a row points at is not there.
        StorageFault: an object does not have the content that its key says.
    """
    if directory.exists() and any(directory.iterdir()):
        raise BackupInvalid(f"{directory} holds something; a backup goes into a new directory.")
    (directory / "tables").mkdir(parents=True, exist_ok=True)
    # From before the snapshot until the last object is copied: what the snapshot names stays.
    with keeping_all(database):
        with database.transaction() as session:
            connection = session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
            created_at = connection.execute(text("SELECT now()")).scalar_one()
            revision = connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one()
            tables = {
                name: _copy_table(connection, name, columns, table_path(directory, name))
                for name, columns in connection.execute(_TABLES).all()
            }
            may_be_gone = _write_keys(connection, bucket, keys_path(directory))
        total = sum(1 for _ in _read_keys(keys_path(directory)))
        copied, copied_bytes, gone = 0, 0, []
        for key, size_bytes in _copy_objects(storage, directory):
            copied += 1
            if size_bytes is not None:
                copied_bytes += size_bytes
            elif key in may_be_gone:
                gone.append(key)
            else:
                raise ObjectNotFound(f"The object {key} is not stored, and a row points at it.", key=key)
            if on_progress is not None:
                on_progress(copied, total)
    manifest = Manifest(
        created_at=created_at.isoformat(),
        revision=revision,
        bucket=bucket,
        tables=tables,
        objects=copied - len(gone),
        objects_bytes=copied_bytes,
        objects_sha256=hash_file(keys_path(directory)),
        gone=tuple(gone),
    )
    write_manifest(directory, manifest)
    return manifest


def _copy_table(connection: Connection, name: str, columns: list[str], path: Path) -> TableFile:
    """Write the rows of a table as PostgreSQL's COPY gives them: a line for each."""
    statement = sql.SQL("COPY public.{} ({}) TO STDOUT").format(
        sql.Identifier(name), sql.SQL(", ").join(map(sql.Identifier, columns))
    )
    digest, rows = hashlib.sha256(), 0
    driver = cast("psycopg.Connection", connection.connection.driver_connection)
    with path.open("wb") as file, driver.cursor() as cursor, cursor.copy(statement) as copy:
        for part in copy:
            data = bytes(part)
            file.write(data)
            digest.update(data)
            rows += data.count(b"\n")
    return TableFile(columns=tuple(columns), rows=rows, sha256=digest.hexdigest())


def _write_keys(connection: Connection, bucket: str, path: Path) -> set[str]:
    """Write the keys that rows point at, and return those whose objects may be gone, which are few."""
    may_be_gone = set()
    with path.open("w") as file:
        for key, is_promise in list_pointed(connection, bucket=bucket):
            file.write(f"{key}\n")
            if is_promise:
                may_be_gone.add(key)
    return may_be_gone


def _read_keys(path: Path) -> Iterator[str]:
    with path.open() as file:
        for line in file:
            yield line.rstrip("\n")


def _copy_objects(storage: Storage, directory: Path) -> Iterator[tuple[str, int | None]]:
    """Copy every object, several at once; yield its key and size, None where it is not stored."""
    with ThreadPoolExecutor(_THREADS) as threads:
        ahead: deque[tuple[str, Future[int | None]]] = deque()
        for key in _read_keys(keys_path(directory)):
            ahead.append((key, threads.submit(_copy_object, storage, key, object_path(directory, key))))
            if len(ahead) > _AHEAD:
                done, size = ahead.popleft()
                yield done, size.result()
        for done, size in ahead:
            yield done, size.result()


def _copy_object(storage: Storage, key: str, path: Path) -> int | None:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        size_bytes = storage.get_to_file(key, path)
    except ObjectNotFound:
        return None
    kind = kind_of(key)
    match = None if kind is None or _NAMED_OTHERWISE.match(key) else kind.pattern.fullmatch(key)
    if match is not None and hash_file(path) != match["sha256"]:
        raise StorageFault(f"The object {key} does not have the content that its key says.", key=key)
    return size_bytes
