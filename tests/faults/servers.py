"""The three real servers with a proxy in front of each, and places on them for runs that know nothing of each other."""

from __future__ import annotations

import dataclasses
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import psutil
import psycopg
import redis
import sqlalchemy
from botocore.config import Config

from benchmarks.place import Place, make_place
from defectoscope.embedded.keeper import Backoff
from defectoscope.embedded.stack import Connections, EmbeddedStack
from defectoscope.embedded.supervisor import Supervisor
from defectoscope.settings import ENVIRONMENT_PREFIX
from tests.faults.proxy import LOOPBACK, FaultProxy

#: What a run may break, by the names that the supervisor knows.
DATABASE, BROKER, STORAGE = "postgresql", "valkey", "seaweedfs"

#: What is killed every few seconds shall not wait longer each time.
QUICK = Backoff(first_s=0.3, longest_s=1.0)
_BACK_WITHIN_S = 60.0


@dataclass(frozen=True, slots=True)
class Servers:
    """The servers, by name, and how to break them."""

    connections: Connections
    supervisor: Supervisor
    proxies: dict[str, FaultProxy] = field(repr=False)

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal to a server itself, not to its guardian."""
        signal_child(self.supervisor, name, number)

    def flush_broker(self) -> None:
        """Make the broker forget everything."""
        with redis.Redis.from_url(self.connections.queue_url) as client:
            client.flushall()

    def cut_database(self, database: str) -> None:
        """End every connection of clients to one database."""
        conninfo = _conninfo(sqlalchemy.make_url(self.connections.database_url))
        with psycopg.connect(conninfo, autocommit=True) as connection:
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (database,))

    def wait_until_back(self) -> None:
        """Wait until the database and the broker answer again."""
        deadline = time.monotonic() + _BACK_WITHIN_S
        while not (self._database_answers() and self._broker_answers()):
            assert time.monotonic() < deadline, f"a server was not back after {_BACK_WITHIN_S} s"
            time.sleep(0.1)

    def _database_answers(self) -> bool:
        try:
            psycopg.connect(_conninfo(sqlalchemy.make_url(self.connections.database_url)), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def _broker_answers(self) -> bool:
        try:
            with redis.Redis.from_url(self.connections.queue_url, socket_timeout=2) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False


@contextmanager
def running_servers(directory: Path) -> Iterator[Servers]:
    """Start everything below a directory that other users may pass through."""
    supervisor = Supervisor(directory / "logs", backoff=QUICK)
    with ExitStack() as stack:
        connections = stack.enter_context(EmbeddedStack(directory, supervisor=supervisor))
        ports = {
            DATABASE: sqlalchemy.make_url(connections.database_url).port,
            BROKER: sqlalchemy.make_url(connections.queue_url).port,
            STORAGE: int(connections.s3_endpoint_url.rpartition(":")[2]),
        }
        proxies = {name: stack.enter_context(FaultProxy(port)) for name, port in ports.items() if port is not None}
        yield Servers(connections, supervisor, proxies)


def new_place(servers: Servers, *, scratch: Path, bucket: str, sections: dict[str, dict[str, Any]]) -> Place:
    """Make a database and a bucket; other processes reach them through the proxies, this one directly."""
    client = boto3.client(
        "s3",
        endpoint_url=servers.connections.s3_endpoint_url,
        aws_access_key_id=servers.connections.s3_access_key,
        aws_secret_access_key=servers.connections.s3_secret_key,
        region_name=servers.connections.s3_region,
        config=Config(s3={"addressing_style": "path"}),
    )
    client.create_bucket(Bucket=bucket)
    client.close()
    # A key prefix on the broker is made with the database's name.
    place = make_place(servers.connections, scratch=scratch, sections={**sections, "storage": {"bucket": bucket}})
    database_url = sqlalchemy.make_url(place.environment[f"{ENVIRONMENT_PREFIX}DATABASE__URL"])
    queue_url = sqlalchemy.make_url(servers.connections.queue_url)
    proxied = {
        "DATABASE__URL": _behind(database_url, servers.proxies[DATABASE]),
        "QUEUE__URL": _behind(queue_url, servers.proxies[BROKER]),
        "STORAGE__ENDPOINT_URL": f"http://{LOOPBACK}:{servers.proxies[STORAGE].port}",
    }
    environment = {**place.environment, **{ENVIRONMENT_PREFIX + name: value for name, value in proxied.items()}}
    return dataclasses.replace(place, environment=environment)


def child_of_guardian(supervisor: Supervisor, name: str, *, within_s: float = _BACK_WITHIN_S) -> psutil.Process:
    """Return the process that a guardian guards, as soon as there is one."""
    deadline = time.monotonic() + within_s
    while True:
        guardian = supervisor.guardian_ids().get(name)
        try:
            children = psutil.Process(guardian).children() if guardian is not None else []
        except psutil.NoSuchProcess:
            children = []
        if children:
            return children[0]
        assert time.monotonic() < deadline, f"{name} did not run within {within_s} s"
        time.sleep(0.05)


def signal_child(supervisor: Supervisor, name: str, number: signal.Signals) -> None:
    """Send a signal to a guarded process; when it ends at this very moment, to the one that follows it."""
    while True:
        try:
            child_of_guardian(supervisor, name).send_signal(number)
        except psutil.NoSuchProcess:
            continue
        return


def _behind(url: sqlalchemy.URL, proxy: FaultProxy) -> str:
    return url.set(host=LOOPBACK, port=proxy.port).render_as_string(hide_password=False)


def _conninfo(url: sqlalchemy.URL) -> str:
    return url.set(drivername="postgresql").render_as_string(hide_password=False)
