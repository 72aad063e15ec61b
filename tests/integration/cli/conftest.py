"""The command line against real processes: API and worker on the shared servers, and a model that calls dark defect."""

from __future__ import annotations

import getpass
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
import psycopg
import pytest
import sqlalchemy

from defectoscope.database import Database
from defectoscope.database.migrate import upgrade
from defectoscope.storage import S3Config, open_s3
from tests.models import put_in_service

START_TIMEOUT_S = 60


@dataclass(frozen=True)
class CommandLine:
    """The real `defectoscope` in a process of its own."""

    environment: dict[str, str]

    def run(self, *arguments, stdin=None):
        return subprocess.run(
            [sys.executable, "-m", "defectoscope", *map(str, arguments)],
            env=self.environment,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def ask(self, *arguments, status=0):
        """Run with `--json` and return the decoded answer."""
        answer = self.run(*arguments, "--json")
        assert answer.returncode == status, answer.stderr
        return json.loads(answer.stdout)


def let_in(environment):
    """The command line with a first token, made as an administrator makes one."""
    made = CommandLine(environment).ask(
        *("tokens", "create", "--database", "--scope", "admin", "--name", getpass.getuser())
    )
    return CommandLine(environment | {"DEFECTOSCOPE_API__TOKEN": made["token"]})


@pytest.fixture(scope="module")
def bare_environment(connections, tmp_path_factory):
    """The environment of a machine where nothing of ours is set."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DEFECTOSCOPE_")}
    return environment | {"DEFECTOSCOPE_CONNECTION_FILE": str(tmp_path_factory.mktemp("state") / "connection.env")}


@pytest.fixture(scope="module")
def environment(connections, bare_environment, tmp_path_factory):
    """The settings of a system of our own on the shared servers: a database, a bucket, a queue prefix, a free port."""
    name = f"test_{secrets.token_hex(8)}"
    url = sqlalchemy.make_url(connections.database_url)
    server = url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    database_url = url.set(database=name).render_as_string(hide_password=False)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    yield bare_environment | {
        "DEFECTOSCOPE_DATABASE__URL": database_url,
        "DEFECTOSCOPE_QUEUE__URL": connections.queue_url,
        "DEFECTOSCOPE_QUEUE__KEY_PREFIX": f"{name}:",
        "DEFECTOSCOPE_STORAGE__ENDPOINT_URL": connections.s3_endpoint_url,
        "DEFECTOSCOPE_STORAGE__REGION": connections.s3_region,
        "DEFECTOSCOPE_STORAGE__ACCESS_KEY": connections.s3_access_key,
        "DEFECTOSCOPE_STORAGE__SECRET_KEY": connections.s3_secret_key,
        "DEFECTOSCOPE_STORAGE__BUCKET": name.replace("_", "-"),
        "DEFECTOSCOPE_API__PORT": str(port),
        "DEFECTOSCOPE_API__URL": f"http://127.0.0.1:{port}",
        "DEFECTOSCOPE_WORKER__MODEL_CACHE_DIR": str(tmp_path_factory.mktemp("models")),
        "DEFECTOSCOPE_WORKER__DEVICE": "cpu",
        "DEFECTOSCOPE_TRAINER__WORK_DIR": str(tmp_path_factory.mktemp("training")),
        "DEFECTOSCOPE_TRAINER__DEVICE": "cpu",
    }
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@pytest.fixture(scope="module")
def system(environment, tmp_path_factory):
    """API and worker, running, with one model version in service."""
    with _running(environment, tmp_path_factory.mktemp("system"), "api", "worker"):
        yield let_in(environment)


@pytest.fixture(scope="module")
def idle_system(environment, tmp_path_factory):
    """The API, running, with one model version in service, and nobody who works."""
    with _running(environment, tmp_path_factory.mktemp("idle"), "api"):
        yield let_in(environment)


@contextmanager
def _running(environment, directory, *names):
    upgrade(environment["DEFECTOSCOPE_DATABASE__URL"])
    celery = ("-m", "celery", "--quiet", "-A", "worker.app", "worker", "-Q", "control,inspection")
    commands = {"api": ("-m", "api"), "worker": (*celery, "--without-mingle", "--without-gossip")}
    processes = []
    try:
        for name in names:
            with (directory / f"{name}.log").open("wb") as log:
                process = subprocess.Popen(
                    [sys.executable, *commands[name]], env=environment, stdout=log, stderr=subprocess.STDOUT
                )
            processes.append(process)
        _wait_until_ready(environment["DEFECTOSCOPE_API__URL"], directory / "api.log")
        _publish_model(environment, directory)
        yield
    finally:
        for process in processes:
            process.send_signal(signal.SIGTERM)
        for process in processes:
            process.wait(timeout=30)


def _wait_until_ready(url, log):
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            if httpx.get(f"{url}/readyz").is_success:
                return
        except httpx.TransportError:
            pass
        assert time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(0.1)


@contextmanager
def open_parts(environment):
    """The database and the storage of a system, for what no command does."""
    config = S3Config(
        endpoint_url=environment["DEFECTOSCOPE_STORAGE__ENDPOINT_URL"],
        region=environment["DEFECTOSCOPE_STORAGE__REGION"],
        access_key=environment["DEFECTOSCOPE_STORAGE__ACCESS_KEY"],
        secret_key=environment["DEFECTOSCOPE_STORAGE__SECRET_KEY"],
        bucket=environment["DEFECTOSCOPE_STORAGE__BUCKET"],
    )
    database = Database(environment["DEFECTOSCOPE_DATABASE__URL"])
    try:
        yield database, open_s3(config)
    finally:
        database.close()


@pytest.fixture(scope="module")
def parts(system):
    """The database and the storage of the running system."""
    with open_parts(system.environment) as opened:
        yield opened


@pytest.fixture(scope="module")
def trainer(system, tmp_path_factory):
    """A trainer beside the running system, for imports."""
    log = tmp_path_factory.mktemp("trainer") / "trainer.log"
    celery = ("-m", "celery", "--quiet", "-A", "trainer.app", "worker", "-Q", "training", "-P", "threads", "-c", "1")
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, *celery, "--without-mingle", "--without-gossip"],
            env=system.environment,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    try:
        yield log
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)


def _publish_model(environment, directory):
    with open_parts(environment) as (database, storage):
        put_in_service(database=database, storage=storage, directory=directory)
