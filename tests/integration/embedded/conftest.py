"""What the tests of the embedded servers share: a word kept by all three servers, and a look at the processes."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass

import boto3
import psutil
import psycopg
import pytest
import redis
import sqlalchemy
from botocore.config import Config


@dataclass(frozen=True)
class ThreeServers:
    """Speaks to the three servers of a stack as their clients do."""

    connections: object

    def s3(self, **overrides):
        return boto3.client(
            "s3",
            endpoint_url=self.connections.s3_endpoint_url,
            aws_access_key_id=overrides.get("access_key", self.connections.s3_access_key),
            aws_secret_access_key=overrides.get("secret_key", self.connections.s3_secret_key),
            region_name=self.connections.s3_region,
            config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}),
        )

    def sql(self):
        url = sqlalchemy.make_url(self.connections.database_url).set(drivername="postgresql")
        return psycopg.connect(url.render_as_string(hide_password=False), autocommit=True)

    def queue(self):
        return redis.Redis.from_url(self.connections.queue_url, decode_responses=True)

    def write(self, word):
        with self.sql() as database, self.queue() as queue, contextlib.closing(self.s3()) as s3:
            database.execute("CREATE TABLE IF NOT EXISTS words (word text)")
            database.execute("INSERT INTO words VALUES (%s)", [word])
            queue.rpush("words", word)
            s3.put_object(Bucket=self.connections.bucket, Key=f"words/{word}", Body=word.encode() * 1000)

    def words(self):
        """The words each server holds, by server name."""
        with self.sql() as database, self.queue() as queue, contextlib.closing(self.s3()) as s3:
            keys = [entry["Key"] for entry in s3.list_objects_v2(Bucket=self.connections.bucket).get("Contents", [])]
            bodies = [s3.get_object(Bucket=self.connections.bucket, Key=key)["Body"].read() for key in keys]
            return {
                "postgresql": {row[0] for row in database.execute("SELECT word FROM words")},
                "valkey": set(queue.lrange("words", 0, -1)),
                "seaweedfs": {body[: len(body) // 1000].decode() for body in bodies},
            }


@pytest.fixture
def three_servers():
    return ThreeServers


@pytest.fixture
def server_process():
    """Find the process of a server, the one child of its guardian."""

    def find(supervisor, name):
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            guardian_id = supervisor.guardian_ids().get(name)
            with contextlib.suppress(psutil.NoSuchProcess):
                if guardian_id is not None and (children := psutil.Process(guardian_id).children()):
                    return children[0]
            time.sleep(0.02)
        raise AssertionError(f"{name} does not run")

    return find


@pytest.fixture
def processes_with():
    """List the live processes whose command line holds a marker."""

    def find(marker):
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.NoSuchProcess):
                if process.status() != psutil.STATUS_ZOMBIE and any(marker in word for word in process.cmdline()):
                    found.append(process)
        return found

    return find


@pytest.fixture
def eventually():
    """Wait until a condition holds; False when it does not within the time."""

    def wait(condition, *, timeout_s=10.0):
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if condition():
                return True
            time.sleep(0.02)
        return False

    return wait
