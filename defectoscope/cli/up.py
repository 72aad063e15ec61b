"""`defectoscope up`: the whole system in the foreground, under one supervisor, on this machine."""

from __future__ import annotations

import importlib.util
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from defectoscope.errors.installation import ComponentMissing, SettingMissing

if TYPE_CHECKING:
    from defectoscope.embedded.server import Server

_PREFIX = "DEFECTOSCOPE_"
#: What has to be set for `up` to use servers that somebody else runs.
_EXTERNAL = ("DATABASE__URL", "QUEUE__URL", "STORAGE__ENDPOINT_URL", "STORAGE__ACCESS_KEY", "STORAGE__SECRET_KEY")


def up(
    data_dir: Annotated[
        Path | None,
        typer.Option(help="Directory of the embedded servers' data.", show_default="of the user, or /var/lib for root"),
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port of the API.", show_default="8000, or a free one")
    ] = None,
) -> None:
    """Run everything here: servers, migrations, API, worker, trainer and beat. Ctrl-C stops it all."""
    from defectoscope.database.migrate import upgrade
    from defectoscope.embedded.stack import EmbeddedStack
    from defectoscope.embedded.supervisor import Supervisor

    _check_components()
    directory = (data_dir or default_data_dir()).expanduser().absolute()
    with Supervisor(directory / "logs", write_line=_write_line, colour=sys.stdout.isatty()) as supervisor:
        environment = _external_servers()
        if environment is None:
            connections = EmbeddedStack(directory, supervisor=supervisor).start()
            environment = {
                "DATABASE__URL": connections.database_url,
                "QUEUE__URL": connections.queue_url,
                "STORAGE__ENDPOINT_URL": connections.s3_endpoint_url,
                "STORAGE__ACCESS_KEY": connections.s3_access_key,
                "STORAGE__SECRET_KEY": connections.s3_secret_key,
                "STORAGE__REGION": connections.s3_region,
                "STORAGE__BUCKET": connections.bucket,
            }
        upgrade(environment["DATABASE__URL"])
        token, token_is_new = _token(environment["DATABASE__URL"], directory)
        api_port = _choose_port(port)
        url = f"http://127.0.0.1:{api_port}"
        environment |= {"API__PORT": str(api_port), "API__URL": url}
        environment = {_PREFIX + name: value for name, value in environment.items()}
        # The processes need no token; terminals of this account do, and read it there.
        with _written_connection_file({**environment, f"{_PREFIX}API__TOKEN": token}):
            supervisor.start_all(_processes(environment, directory, url))
            if token_is_new:
                supervisor.say(_announcement(token, directory))
            supervisor.say(f"ready at {url}  (data in {directory}; Ctrl-C stops)")
            supervisor.run_until_stopped()


def default_data_dir() -> Path:
    """Return where data lie when nothing is said.

    PostgreSQL never runs as root but as an account of its own, which root's home directory does not let in.
    """
    from platformdirs import site_data_path, user_data_path

    if hasattr(os, "geteuid") and os.geteuid() == 0:
        return Path("/var/lib/defectoscope") if sys.platform == "linux" else site_data_path("defectoscope")
    return user_data_path("defectoscope")


def _token(database_url: str, directory: Path) -> tuple[str, bool]:
    """Return the admin token of this machine, and whether it was made just now."""
    from defectoscope.cli.first_token import admin_token
    from defectoscope.database import Database

    database = Database(database_url, pool_size=1)
    try:
        return admin_token(database, data_dir=directory)
    finally:
        database.close()


def _announcement(token: str, directory: Path) -> str:
    """Return what is said of a new admin token: itself to a person at a terminal, its place to a file or a log."""
    from defectoscope.cli.first_token import KEPT_IN

    kept = directory / KEPT_IN
    if sys.stdout.isatty():
        return f"the first admin token, shown this once and kept in {kept}: {token}"
    return f"the first admin token was made and is kept in {kept}"


def _write_line(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _check_components() -> None:
    """Raises: ComponentMissing: this is an installed wheel, which holds the core and no application."""
    missing = [name for name in ("api", "worker", "trainer") if importlib.util.find_spec(name) is None]
    if missing:
        raise ComponentMissing(
            f"{', '.join(missing)} cannot be imported here; `defectoscope up` runs from a checkout (`make setup`)."
        )


def _external_servers() -> dict[str, str] | None:
    """Return the addresses of servers given by the environment, or None when the embedded ones are wanted.

    The connection file is not looked at: it would point a second `up` at the servers of the first.

    Raises:
        SettingMissing: some are given and some are not.
    """
    given = {name: os.environ[key] for name in _EXTERNAL if (key := _PREFIX + name) in os.environ}
    if not given:
        return None
    missing = [_PREFIX + name for name in _EXTERNAL if name not in given]
    if missing:
        raise SettingMissing(
            f"To use external servers set all of their addresses; missing: {', '.join(missing)}.", missing=missing
        )
    return given


def _choose_port(wanted: int | None) -> int:
    """Return the port to listen on: the one asked for, or the default, or any free one when that is taken."""
    from defectoscope.settings import Settings

    for port in [wanted] if wanted is not None else [Settings(_env_file=None).api.port, 0]:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise SettingMissing(f"Port {wanted} is in use; choose another with --port.", port=wanted)


@contextmanager
def _written_connection_file(environment: dict[str, str]) -> Iterator[None]:
    """Keep the connection file while the servers run, readable by its owner alone."""
    from defectoscope.settings import connection_file

    path = connection_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    content = "".join(f"{name}={value}\n" for name, value in environment.items())
    partial = path.with_suffix(f".{os.getpid()}")
    partial.touch(mode=0o600)
    partial.write_text(content)
    partial.replace(path)
    try:
        yield
    finally:
        # Another `up` may have written its own since.
        if path.exists() and path.read_text() == content:
            path.unlink()


def _processes(environment: dict[str, str], directory: Path, url: str) -> list[Server]:
    import httpx

    from defectoscope.embedded.server import Server

    def is_ready() -> bool:
        try:
            return httpx.get(f"{url}/readyz", timeout=2).status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    python = sys.executable
    child_environment = {
        **os.environ,
        **environment,
        "PYTHONUNBUFFERED": "1",
        # Celery says so in eight lines at every start. In a container everything is root, and no pickle is accepted.
        "PYTHONWARNINGS": "ignore:You're running the worker with superuser",
    }
    celery = (python, "-m", "celery", "--quiet", "-A")
    quiet = ("--without-mingle", "--without-gossip")
    commands = {
        "api": (python, "-m", "api"),
        "worker": (*celery, "worker.app", "worker", "-Q", "control,inspection", "-n", "worker@%h", *quiet),
        "trainer": (
            *celery,
            "trainer.app",
            "worker",
            "-Q",
            "training",
            "-P",
            "threads",
            # One for the training, of which there is one at a time; one for imports, which shall not wait for it.
            "-c",
            "2",
            "-n",
            "trainer@%h",
            *quiet,
        ),
        "beat": (*celery, "trainer.app", "beat"),
    }
    return [
        Server(
            name=name,
            argv=argv,
            env=child_environment,
            cwd=directory,
            is_ready=is_ready if name == "api" else None,
        )
        for name, argv in commands.items()
    ]
