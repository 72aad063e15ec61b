"""The three embedded servers as one thing that is started and stopped."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from defectoscope.embedded.data_directory import DataDirectoryLock
from defectoscope.embedded.ports import is_free
from defectoscope.embedded.postgres import prepare_postgres
from defectoscope.embedded.private_files import private_directory
from defectoscope.embedded.seaweedfs import BUCKET, REGION, prepare_seaweedfs
from defectoscope.embedded.supervisor import Supervisor
from defectoscope.embedded.valkey import prepare_valkey
from defectoscope.errors.installation import ServerStartFailed

_START_ATTEMPTS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Connections:
    """Where the servers answer and what they want to hear. Passwords are not shown by ``repr``."""

    database_url: str = field(repr=False)
    queue_url: str = field(repr=False)
    s3_endpoint_url: str
    s3_access_key: str = field(repr=False)
    s3_secret_key: str = field(repr=False)
    s3_region: str
    bucket: str


class EmbeddedStack:
    """PostgreSQL, Valkey and SeaweedFS on free loopback ports, with all their files under one directory.

    As a context manager it yields the `Connections`. A server that crashes is started again at the same address.

    Args:
        data_dir: Created with mode 0700 when absent; may be relative and may hold spaces.
        supervisor: Runs the servers; by default one of our own that only writes log files. `stop` stops whatever
            else runs on it as well, and before the servers if it was started after them.
    """

    def __init__(self, data_dir: Path, *, supervisor: Supervisor | None = None) -> None:
        self.data_dir = data_dir.expanduser().absolute()
        self.log_dir = self.data_dir / "logs"
        self.supervisor = supervisor or Supervisor(self.log_dir)
        self._lock: DataDirectoryLock | None = None
        self._connections: Connections | None = None

    def __enter__(self) -> Connections:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> Connections:
        """Start the three servers at the same time and wait until all of them answer; once started, change nothing.

        Returns:
            How to reach them; the same addresses as last time where the ports are still free.

        Raises:
            DataDirectoryBusy: Another process uses the data directory.
            PlatformUnsupported: A server is not available here.
            ServerStartFailed: A server did not start; the message ends with the last lines of its log.
        """
        if self._connections is not None:
            return self._connections
        try:
            self._lock = DataDirectoryLock(self.data_dir)
            private_directory(self.data_dir / "secrets")
            self._connections = self._start_servers(self._lock)
        except OSError as exc:
            raise ServerStartFailed(f"The data directory {self.data_dir} cannot be used: {exc}") from exc
        finally:
            if self._connections is None:
                self.stop()
        return self._connections

    def stop(self) -> None:
        """Stop the servers and give the data directory back. Does nothing when they do not run."""
        if self._lock is None:
            return
        self.supervisor.stop()
        self._lock.release()
        self._lock, self._connections = None, None

    def _start_servers(self, lock: DataDirectoryLock) -> Connections:
        for attempt in range(1, _START_ATTEMPTS + 1):
            postgres = prepare_postgres(self.data_dir)
            valkey = prepare_valkey(self.data_dir)
            seaweedfs = prepare_seaweedfs(self.data_dir)
            servers = [
                dataclasses.replace(prepared.server, held_fd=lock.descriptor)
                for prepared in (postgres, valkey, seaweedfs)
            ]
            try:
                self.supervisor.start_all(servers)
            except ServerStartFailed:
                # A port was free when it was chosen and may have been taken since. Only then are others worth a try.
                if attempt == _START_ATTEMPTS or all(is_free(port) for server in servers for port in server.ports):
                    raise
                continue
            break
        return Connections(
            database_url=postgres.url,
            queue_url=valkey.url,
            s3_endpoint_url=seaweedfs.endpoint_url,
            s3_access_key=seaweedfs.access_key,
            s3_secret_key=seaweedfs.secret_key,
            s3_region=REGION,
            bucket=BUCKET,
        )
