"""Opens a storage: S3, a local directory or memory. It refuses to read the environment or to connect.

A store must be opened after a fork, not before: its threads and connections do not survive one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from obstore.store import LocalStore, MemoryStore, S3Store

from defectoscope.errors.storage import StorageDenied, StorageFault, StorageUnavailable
from defectoscope.storage.contract import Storage
from defectoscope.storage.failures import translated
from defectoscope.storage.object_store import ObstoreStorage
from defectoscope.storage.uri import check_bucket

if TYPE_CHECKING:
    from obstore.store import S3Credential

_HEADER_WORD = re.compile(r"[!-~]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Config:
    """How to reach an S3 server.

    Attributes:
        endpoint_url: Address of the server, such as `http://127.0.0.1:8333`; None for Amazon's.
        region: Region to sign for.
        access_key: Public half of the credentials.
        secret_key: Secret half; never shown.
        bucket: Our own bucket.

    Raises:
        StorageFault: The endpoint is no http(s) address, or a text holds a space or control character, such as the
            line break at the end of a file with a secret. obstore would end the process on them.
    """

    endpoint_url: str | None
    region: str
    access_key: str
    secret_key: str = field(repr=False)
    bucket: str

    def __post_init__(self) -> None:
        """Refuse what could not even be sent."""
        for name in ("region", "access_key", "secret_key"):
            if not _HEADER_WORD.fullmatch(getattr(self, name)):
                raise StorageFault(f"The {name} of the object storage must be printable ASCII without spaces.")
        if self.endpoint_url is not None and not _is_http_address(self.endpoint_url):
            raise StorageFault("The endpoint of the object storage is not an http or https address.")

    @property
    def allow_http(self) -> bool:
        """Whether the connection is in the clear, which only an endpoint that says `http` asks for."""
        return self.endpoint_url is not None and self.endpoint_url.lower().startswith("http://")


def _is_http_address(text: str) -> bool:
    """Say whether a text is an http or https address of a host, with a port that exists."""
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        return False
    is_host = bool(re.fullmatch(r"[0-9A-Za-z._:-]+", parts.hostname or "")) and "@" not in parts.netloc
    return bool(_HEADER_WORD.fullmatch(text)) and parts.scheme in {"http", "https"} and is_host and port != 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long to wait for an S3 server before it counts as unavailable.

    A refused connection is tried again for `retry_s`; a server that accepts and stays silent costs one `stall_s`.
    Together they bound every call to `retry_s + stall_s`, streams excepted: those end `stall_s` after the last byte.

    Attributes:
        connect_s: For one connection, in seconds.
        stall_s: Without a byte from the server, in seconds.
        retry_s: From the first attempt until the last may begin, in seconds.
    """

    connect_s: float = 3.0
    stall_s: float = 10.0
    retry_s: float = 8.0


_DEFAULT_PATIENCE = Patience()
_MOST_RETRIES = 8
# A request as a whole is not timed: a model of hundreds of MB may take minutes while bytes keep coming.
_LONGEST_REQUEST = timedelta(hours=1)


class _OurCredentials:
    """Hands our keys to obstore without a token.

    Given the keys as plain options, obstore would add a token it finds in the environment (AWS_SESSION_TOKEN), which
    the server refuses beside our keys.
    """

    def __init__(self, config: S3Config) -> None:
        self._config = config

    def __call__(self) -> S3Credential:
        """Return the keys; they never expire, so obstore asks once."""
        return {
            "access_key_id": self._config.access_key,
            "secret_access_key": self._config.secret_key,
            "token": None,
            "expires_at": None,
        }


def open_s3(config: S3Config, *, bucket: str | None = None, patience: Patience = _DEFAULT_PATIENCE) -> Storage:
    """Open a bucket; one store for each bucket and process, shared by its threads, keeps connections alive.

    Args:
        config: The server and our bucket.
        bucket: Another bucket, for reading inputs.
        patience: Timeouts and retries.

    Returns:
        The storage. Whether the bucket exists shows at the first call.

    Raises:
        InvalidStorageUri: This cannot be the name of a bucket.
    """
    name = check_bucket(bucket or config.bucket)
    with translated(bucket=name):
        store = S3Store(
            name,
            config={
                # What is not said here, obstore would take from the AWS_* variables of the process.
                "region": config.region,
                "skip_signature": False,
                "virtual_hosted_style_request": False,
                "conditional_put": "etag",
                **({} if config.endpoint_url is None else {"endpoint": config.endpoint_url}),
            },
            client_options={
                "allow_http": config.allow_http,
                "connect_timeout": timedelta(seconds=patience.connect_s),
                "read_timeout": timedelta(seconds=patience.stall_s),
                "timeout": _LONGEST_REQUEST,
                "pool_idle_timeout": timedelta(seconds=60),
            },
            retry_config={
                "max_retries": _MOST_RETRIES,
                "retry_timeout": timedelta(seconds=patience.retry_s),
                "backoff": {
                    "init_backoff": timedelta(milliseconds=100),
                    "max_backoff": timedelta(seconds=2),
                    "base": 2,
                },
            },
            credential_provider=_OurCredentials(config),
        )
    return ObstoreStorage(store=store, bucket=name)


def open_local(directory: Path) -> Storage:
    """Open a directory as storage; it is made if missing.

    Content types are not kept, a key must fit the file system, and links that lead out of the directory are refused.

    Raises:
        StorageDenied: The directory may not be made.
        StorageUnavailable: It cannot be made for another reason.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except PermissionError as exc:
        raise StorageDenied(directory=str(directory)) from exc
    except OSError as exc:
        raise StorageUnavailable("The storage directory cannot be made.", directory=str(directory)) from exc
    resolved = directory.resolve()
    with translated(directory=str(resolved)):
        return ObstoreStorage(store=LocalStore(resolved), directory=resolved)


def open_memory() -> Storage:
    """Open a storage that lives as long as the object returned, for tests and trials."""
    return ObstoreStorage(store=MemoryStore())
