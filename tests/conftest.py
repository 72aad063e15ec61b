"""The real servers, started once for all tests, and a fresh database or bucket on them for each test that asks."""

from __future__ import annotations

import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
import psycopg
import pytest
import sqlalchemy
from botocore.config import Config
from pydantic import SecretStr

from defectoscope.database import Base, Database
from defectoscope.database.migrate import upgrade
from defectoscope.embedded.stack import Connections, EmbeddedStack
from defectoscope.queue import MemoryQueue
from defectoscope.settings import (
    DatabaseSettings,
    InspectionSettings,
    QueueSettings,
    Settings,
    StorageSettings,
    WorkerSettings,
)
from defectoscope.storage import S3Config, Storage, open_s3

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client


@pytest.fixture(scope="session")
def make_data_dir() -> Iterator[Callable[[], Path]]:
    """Make data directories for embedded servers.

    pytest's own `tmp_path` will not do when the tests run as root: it lies in a directory that is closed to other
    users, and PostgreSQL then runs as one of them.
    """
    made: list[Path] = []

    def make() -> Path:
        made.append(Path(tempfile.mkdtemp(prefix="defectoscope-tests-")))
        return made[-1]

    yield make
    for directory in made:
        shutil.rmtree(directory)


@pytest.fixture(scope="session")
def embedded_stack(make_data_dir: Callable[[], Path]) -> Iterator[EmbeddedStack]:
    """PostgreSQL, Valkey and SeaweedFS, running. Shared by all tests: leave them as they are."""
    stack = EmbeddedStack(make_data_dir())
    with stack:
        yield stack


@pytest.fixture(scope="session")
def connections(embedded_stack: EmbeddedStack) -> Connections:
    """Addresses and credentials of the shared servers."""
    return embedded_stack.start()


@pytest.fixture
def database_url(connections: Connections) -> Iterator[str]:
    """The SQLAlchemy URL of a new, empty database, which is dropped afterwards."""
    with _new_database(connections) as url:
        yield url


@pytest.fixture(scope="session")
def migrated_database(connections: Connections) -> Iterator[str]:
    """The SQLAlchemy URL of a database that every migration was applied to. Ask for `migrated_url` instead."""
    with _new_database(connections) as url:
        upgrade(url)
        yield url


@pytest.fixture
def migrated_url(migrated_database: str) -> str:
    """The SQLAlchemy URL of a database with every table and no row; numbers begin at 1.

    It is one database, emptied for each test that asks: making and dropping one takes five times as long.
    """
    name = sqlalchemy.make_url(migrated_database).database
    with psycopg.connect(_conninfo(sqlalchemy.make_url(migrated_database)), autocommit=True) as connection:
        # Ends the connections that the test before, or the pool of its engine, has left open.
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = %s AND pid <> pg_backend_pid() AND backend_type = 'client backend'",
            (name,),
        )
        tables = ", ".join(table.name for table in Base.metadata.sorted_tables)
        connection.execute(f"TRUNCATE {tables} RESTART IDENTITY CASCADE".encode())
    return migrated_database


@pytest.fixture
def database(migrated_url: str) -> Iterator[Database]:
    """A new database with every table and no row."""
    database = Database(migrated_url)
    yield database
    database.close()


@contextmanager
def _new_database(connections: Connections) -> Iterator[str]:
    name = f"test_{secrets.token_hex(8)}"
    url = sqlalchemy.make_url(connections.database_url)
    with psycopg.connect(_conninfo(url), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    yield url.set(database=name).render_as_string(hide_password=False)
    with psycopg.connect(_conninfo(url), autocommit=True) as connection:
        # FORCE ends the connections that a test, or the pool of its engine, has left open.
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@pytest.fixture(scope="session")
def s3_client(connections: Connections) -> Iterator[S3Client]:
    """A client of the object storage that may do anything there. Made once: that alone takes a quarter of a second."""
    client = boto3.client(
        "s3",
        endpoint_url=connections.s3_endpoint_url,
        aws_access_key_id=connections.s3_access_key,
        aws_secret_access_key=connections.s3_secret_key,
        region_name=connections.s3_region,
        config=Config(s3={"addressing_style": "path"}),
    )
    yield client
    client.close()


@pytest.fixture
def bucket(s3_client: S3Client) -> Iterator[str]:
    """The name of a new, empty bucket, which is deleted afterwards with all that is in it."""
    name = f"test-{secrets.token_hex(8)}"
    s3_client.create_bucket(Bucket=name)
    yield name
    for page in s3_client.get_paginator("list_objects_v2").paginate(Bucket=name):
        keys = [{"Key": entry["Key"]} for entry in page.get("Contents", [])]
        if keys:
            s3_client.delete_objects(Bucket=name, Delete={"Objects": keys, "Quiet": True})
    s3_client.delete_bucket(Bucket=name)


@pytest.fixture
def s3(connections: Connections, bucket: str) -> S3Config:
    """How to reach a new, empty bucket."""
    return S3Config(
        endpoint_url=connections.s3_endpoint_url,
        region=connections.s3_region,
        access_key=connections.s3_access_key,
        secret_key=connections.s3_secret_key,
        bucket=bucket,
    )


@pytest.fixture
def storage(s3: S3Config) -> Storage:
    """A new, empty bucket."""
    return open_s3(s3)


@pytest.fixture
def queue() -> MemoryQueue:
    """A queue whose messages a test looks at or hands on itself."""
    return MemoryQueue()


@pytest.fixture
def settings(connections: Connections, migrated_url: str, bucket: str, tmp_path: Path) -> Settings:
    """Settings of a process that works on a new database and a new bucket."""
    return Settings(
        database=DatabaseSettings(url=SecretStr(migrated_url)),
        queue=QueueSettings(url=SecretStr(connections.queue_url), key_prefix=f"{bucket}:"),
        storage=StorageSettings(
            endpoint_url=connections.s3_endpoint_url,
            region=connections.s3_region,
            access_key=connections.s3_access_key,
            secret_key=SecretStr(connections.s3_secret_key),
            bucket=bucket,
        ),
        inspection=InspectionSettings(chunk_size=4, backoff_s=0),
        worker=WorkerSettings(
            device="cpu", intra_op_threads=1, io_threads=2, retry_pause_s=0, model_cache_dir=tmp_path / "models"
        ),
    )


def _conninfo(url: sqlalchemy.URL) -> str:
    return url.set(drivername="postgresql").render_as_string(hide_password=False)
