"""The commands and health checks of docker-compose.yml, run without containers against the embedded servers."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
import redis
import sqlalchemy
from prometheus_client.parser import text_string_to_metric_families
from redis.backoff import NoBackoff
from redis.retry import Retry

from defectoscope.embedded.valkey import prepare_valkey

PROCESSES = ["api", "worker", "trainer", "beat"]
WATCHED_FOR_S = 60


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclass
class Container:
    """What a container would be: the folders of its image, its environment, its command and its health check."""

    directory: Path
    environment: dict[str, str]
    command: list[str]
    health_check: list[str]

    def start(self):
        with (self.directory / "log").open("wb") as log:
            return subprocess.Popen(
                self.command, cwd=self.directory, env=self.environment, stdout=log, stderr=subprocess.STDOUT
            )

    def run(self):
        return subprocess.run(
            self.command, cwd=self.directory, env=self.environment, check=False, capture_output=True, text=True
        )

    def is_healthy(self):
        check = subprocess.run(
            self.health_check, cwd=self.directory, env=self.environment, check=False, capture_output=True
        )
        return check.returncode == 0

    def log(self):
        return (self.directory / "log").read_text()


@pytest.fixture
def container(  # noqa: PLR0917 - what a container is made of
    services, stages, cpu_override, interpolate, connections, database_url, repository, tmp_path
):
    """Make what compose would, with the addresses inside its networks replaced by those of the embedded servers."""
    database = sqlalchemy.make_url(database_url)
    api_port = free_port()
    secrets = {
        "POSTGRES_PASSWORD": re.search(r":([^:@]+)@", database_url)[1],
        "VALKEY_PASSWORD": re.search(r":([^:@/]+)@", connections.queue_url)[1],
        "S3_ACCESS_KEY": connections.s3_access_key,
        "S3_SECRET_KEY": connections.s3_secret_key,
    }
    inside_to_here = {
        "postgres:5432/defectoscope": f"{database.host}:{database.port}/{database.database}",
        "valkey:6379/0": connections.queue_url.partition("@")[2],
        "http://seaweedfs:8333": connections.s3_endpoint_url,
        "127.0.0.1:8000": f"127.0.0.1:{api_port}",
        "0.0.0.0": "127.0.0.1",  # noqa: S104 - no test listens for other machines
        "/tmp/": f"{tmp_path}/",  # noqa: S108 - memory of the container's own
    }

    def here(text):
        for inside, outside in inside_to_here.items():
            text = text.replace(inside, outside)
        return str(api_port) if text == "8000" else text

    def make(name):
        service = interpolate(services[name], secrets)
        directory = tmp_path / name
        for source, target in stages[service["build"]["target"]].copied_from_context():
            place = directory / target.removeprefix("/srv/")
            place.parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if (repository / source).is_dir() else shutil.copy)(repository / source, place)
        given = service["environment"] | cpu_override["services"].get(name, {}).get("environment", {})
        kind, *check = service.get("healthcheck", {"test": ["CMD", "false"]})["test"]
        return Container(
            directory=directory,
            environment={
                # The engine sets these two, the image the others.
                "HOSTNAME": socket.gethostname(),
                "HOME": str(directory),
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                "PYTHONPATH": str(directory),
                # Ours alone on the shared broker, and no connection file of this machine.
                "DEFECTOSCOPE_QUEUE__KEY_PREFIX": f"{tmp_path.name}:",
                "DEFECTOSCOPE_CONNECTION_FILE": str(tmp_path / "none"),
                **{variable: here(value) for variable, value in given.items()},
            },
            command=[here(word) for word in service["command"]],
            health_check=[*(["/bin/sh", "-c"] if kind == "CMD-SHELL" else []), *map(here, check)],
        )

    return make


def first_health(container, process, deadline):
    """Wait as the engine does. True when the check has passed, False when the process ended or time ran out."""
    while time.monotonic() < deadline and process.poll() is None:
        if container.is_healthy():
            return True
        time.sleep(0.2)
    return False


def read_figures(container):
    """Our own metrics that a process serves where its log says, by name, and whether it reaches its database."""
    (url,) = re.findall(r'"url": "(http://[^"]+/metrics)"', container.log())
    with urlopen(url, timeout=20) as answer:  # noqa: S310 - our own process
        families = list(text_string_to_metric_families(answer.read().decode()))
    names = {
        f"{family.name}_total" if family.type == "counter" else family.name
        for family in families
        if family.name.startswith("defectoscope_")
    }
    return names, [sample.value for family in families for sample in family.samples if sample.name.endswith("_up")]


def make_first_token(api, repository):
    """Run in the container of the API what deploy/README.md says, and return what is printed."""
    page = (repository / "deploy" / "README.md").read_text()
    (words,) = re.findall(r"^ {4}docker compose exec api (.+)$", page, re.MULTILINE)
    made = subprocess.run(
        words.split(), cwd=api.directory, env=api.environment, check=False, capture_output=True, text=True
    )
    assert made.returncode == 0, made.stderr
    return made.stdout.strip()


def ask_api(api, token):
    port = api.environment["DEFECTOSCOPE_API__PORT"]
    request = Request(f"http://127.0.0.1:{port}/v1/jobs", headers={"Authorization": f"Bearer {token}"})
    with urlopen(request, timeout=20) as answer:  # noqa: S310 - our own process
        return json.load(answer)


def documented_metrics(repository, section):
    page = (repository / "docs" / "metrics.md").read_text()
    return set(
        re.findall(r"^\| `(defectoscope_\w+)` \|", page.split(f"## {section}\n")[1].split("\n## ")[0], re.MULTILINE)
    )


def seconds(text):
    return int(text.removesuffix("s"))


def test_the_processes_start_become_healthy_show_figures_and_end_as_docker_compose_says(
    container, services, repository
):
    migration = container("migrate").run()
    assert migration.returncode == 0, migration.stderr
    containers = {name: container(name) for name in PROCESSES}
    healthy_too_early = [name for name in ("api", "beat") if containers[name].is_healthy()]

    with contextlib.ExitStack() as cleaning:
        running = {name: made.start() for name, made in containers.items()}
        for process in running.values():
            cleaning.callback(process.wait)
            cleaning.callback(process.kill)
        deadline = time.monotonic() + WATCHED_FOR_S
        with ThreadPoolExecutor(len(running)) as watchers:
            health = dict(
                zip(
                    running,
                    watchers.map(lambda name: first_health(containers[name], running[name], deadline), running),
                    strict=True,
                )
            )
        first_token = make_first_token(containers["api"], repository)
        jobs = ask_api(containers["api"], first_token)
        figures = {name: read_figures(containers[name]) for name in PROCESSES if name != "beat" and health[name]}
        running["beat"].send_signal(signal.SIGSTOP)
        healthy_without_a_turn = containers["beat"].is_healthy()
        running["beat"].send_signal(signal.SIGCONT)
        for process in running.values():
            process.send_signal(signal.SIGTERM)
        statuses = {
            name: process.wait(seconds(services[name]["stop_grace_period"])) for name, process in running.items()
        }

    logs = {name: made.log() for name, made in containers.items()}
    assert healthy_too_early == []
    assert health == dict.fromkeys(PROCESSES, True), logs
    assert not healthy_without_a_turn
    assert jobs == {"items": [], "next_cursor": None}
    assert first_token not in "".join(logs.values())
    for name, up in {"api": [1.0], "worker": [], "trainer": [1.0]}.items():
        assert figures[name] == (documented_metrics(repository, name), up)
    assert "metrics.served" not in logs["beat"]
    # uvicorn raises the signal again when it has shut down in order.
    assert statuses == {**dict.fromkeys(PROCESSES, 0), "api": -signal.SIGTERM}, logs
    assert "Finished server process" in logs["api"]
    assert [name for name, log in logs.items() if "Traceback" in log] == [], logs


def test_the_broker_starts_from_its_file_with_the_password_off_the_command_line(
    services, interpolate, repository, make_data_dir, tmp_path
):
    binary = Path(prepare_valkey(make_data_dir()).server.argv[0])
    port = free_port()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "valkey-server").symlink_to(binary)
    configuration = tmp_path / "valkey.conf"
    lines = (repository / "deploy" / "valkey.conf").read_text()
    lines = lines.replace("bind * -::*", "bind 127.0.0.1").replace("port 6379", f"port {port}")
    configuration.write_text(lines.replace("dir /data", f"dir {tmp_path}"))
    command = interpolate(services["valkey"]["command"], {})
    command[-1] = command[-1].replace("/etc/valkey/valkey.conf", str(configuration))
    environment = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "VALKEY_PASSWORD": "abc123"}

    with (
        subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as process,
        redis.Redis(port=port, password="abc123", decode_responses=True, retry=Retry(NoBackoff(), 0)) as client,
        redis.Redis(port=port, retry=Retry(NoBackoff(), 0)) as stranger,
    ):
        deadline = time.monotonic() + 10
        while not answers(client) and time.monotonic() < deadline:
            time.sleep(0.05)
        settings = client.config_get("appendonly", "maxmemory-policy", "maxmemory")
        words = subprocess.run(["ps", "-ww", "-o", "args=", "-p", str(process.pid)], check=True, capture_output=True)
        stranger_is_let_in = answers(stranger)
        process.terminate()
        status = process.wait(seconds(services["valkey"]["stop_grace_period"]))

    assert settings == {"appendonly": "yes", "maxmemory-policy": "noeviction", "maxmemory": str(512 * 2**20)}
    assert not stranger_is_let_in
    assert b"valkey-server" in words.stdout
    assert b"abc123" not in words.stdout
    assert status == 0


def answers(client):
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False


def test_every_option_of_the_storage_exists(services):
    options = [word for word in services["seaweedfs"]["command"] if word.startswith("-")]
    weed = Path(sys.executable).parent / "weed"

    helped = subprocess.run([weed, "server", "-h"], check=False, capture_output=True, text=True)

    known = set(re.findall(r"^  -([\w.]+)", helped.stdout + helped.stderr, re.MULTILINE))
    given = {re.fullmatch(r"-([\w.]+)(=\S+)?", option)[1] for option in options}
    assert len(known) > 50
    assert given - {"logtostderr"} <= known
