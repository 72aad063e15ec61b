"""Who can reach the embedded servers: on this machine only, with the generated secrets only."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import http.client
import json
import stat
import struct
import tempfile
import time
from pathlib import Path

import botocore.exceptions
import psutil
import psycopg
import pytest
import redis
import sqlalchemy
from redis.backoff import NoBackoff
from redis.retry import Retry

NAMES = ["postgresql", "valkey", "seaweedfs"]
METHODS = ["GET", "HEAD", "PUT", "POST", "DELETE"]
# An entry of the storage's index: key, offset in units of 8 bytes (the low four bytes, then the fifth), size.
_ENTRY = struct.Struct(">QIBi")
SECRET_BODY = b"only a signed request may read this " * 3000


@pytest.fixture
def listening(embedded_stack, server_process):
    """Every TCP address on which a server or one of its children listens."""

    def find(name):
        process = server_process(embedded_stack.supervisor, name)
        return {
            tuple(connection.laddr)
            for member in [process, *process.children(recursive=True)]
            for connection in member.net_connections("inet")
            if connection.status == psutil.CONN_LISTEN
        }

    return find


@pytest.fixture
def servers(connections, three_servers):
    return three_servers(connections)


@pytest.mark.parametrize("name", NAMES)
def test_a_server_listens_on_the_loopback_address_only(listening, name):
    addresses = listening(name)

    assert addresses
    assert {host for host, _ in addresses} == {"127.0.0.1"}


def test_the_database_refuses_a_wrong_password(connections):
    url = sqlalchemy.make_url(connections.database_url).set(drivername="postgresql", password="wrong")

    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(url.render_as_string(hide_password=False))


def test_nobody_can_log_in_as_the_superuser(connections):
    url = sqlalchemy.make_url(connections.database_url).set(drivername="postgresql", username="postgres")

    with pytest.raises(psycopg.OperationalError, match=r"no pg_hba\.conf entry"):
        psycopg.connect(url.render_as_string(hide_password=False))


def test_the_login_of_the_application_has_no_superuser_rights(servers):
    with servers.sql() as database:
        rights = database.execute(
            "SELECT rolsuper, rolcreaterole, rolreplication, rolbypassrls FROM pg_roles WHERE rolname = current_user"
        ).fetchone()

    assert rights == (False, False, False, False)


@pytest.mark.parametrize("password", ["wrong", None], ids=["wrong", "none"])
def test_the_queue_refuses_a_wrong_password(connections, password):
    port = int(connections.queue_url.rsplit(":", 1)[1].split("/")[0])

    with (
        redis.Redis(host="127.0.0.1", port=port, password=password, retry=Retry(NoBackoff(), 0)) as client,
        pytest.raises(redis.AuthenticationError),
    ):
        client.ping()


@pytest.mark.parametrize("wrong", ["access_key", "secret_key"])
def test_the_storage_refuses_a_wrong_key(servers, connections, wrong):
    with (
        contextlib.closing(servers.s3(**{wrong: "wrong"})) as s3,
        pytest.raises(botocore.exceptions.ClientError) as error,
    ):
        s3.list_objects_v2(Bucket=connections.bucket)

    assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403


def test_secrets_are_in_files_for_their_owner_only_and_nowhere_else(embedded_stack, connections, processes_with):
    directory = embedded_stack.data_dir / "secrets"
    files = [path for path in directory.iterdir() if path.suffix != ".json"]
    secrets = {path.read_text() for path in files}
    url = sqlalchemy.make_url(connections.database_url)

    modes = {stat.S_IMODE(path.stat().st_mode) for path in (*files, embedded_stack.data_dir / "valkey" / "valkey.conf")}
    command_lines = [word for process in psutil.process_iter() for word in _command_line(process)]
    logs = "".join(path.read_text() for path in embedded_stack.log_dir.iterdir())

    assert modes == {0o600}
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert {url.password, connections.s3_access_key, connections.s3_secret_key} < secrets
    assert all(len(secret) == 32 for secret in secrets)
    assert [secret for secret in secrets if secret in logs] == []
    assert [secret for secret in secrets if any(secret in word for word in command_lines)] == []
    assert not any(secret in repr(connections) for secret in secrets)


def test_directories_of_the_servers_are_closed_to_other_users(embedded_stack):
    # In a directory of mode 0700 the mode that a server gives its files does not matter.
    modes = {name: stat.S_IMODE((embedded_stack.data_dir / name).stat().st_mode) for name in NAMES}

    assert modes == dict.fromkeys(NAMES, 0o700)


def test_sockets_of_the_storage_in_the_file_system_are_closed_to_other_users(listening):
    ports = {port for _, port in listening("seaweedfs")}
    sockets = [
        path
        for path in Path(tempfile.gettempdir()).glob("seaweedfs-*.sock")
        if path.is_socket() and int(path.stem.rsplit("-", 1)[1]) in ports
    ]

    assert [path for path in sockets if stat.S_IMODE(path.stat().st_mode) & 0o077] == []


@pytest.fixture
def guarded_object(servers, connections):
    """An object that only a signed request may touch."""
    with contextlib.closing(servers.s3()) as s3:
        s3.put_object(Bucket=connections.bucket, Key="guarded/object.bin", Body=SECRET_BODY)
        yield "guarded/object.bin"
        s3.delete_object(Bucket=connections.bucket, Key="guarded/object.bin")


def test_no_unsigned_request_on_any_port_reads_or_changes_an_object(
    embedded_stack, servers, connections, listening, guarded_object
):
    needles = _needles(embedded_stack.data_dir / "seaweedfs")
    paths = [
        f"/{connections.bucket}/{guarded_object}",
        f"/buckets/{connections.bucket}/{guarded_object}",
        f"/{connections.bucket}/planted.bin",
        f"/buckets/{connections.bucket}/planted.bin",
        "/submit",
        "/dir/assign",
        f"/.tus/buckets/{connections.bucket}/planted.bin",
        *(f"/{needle}" for needle in needles),
        *(f"/{needle.replace(',', '/')}" for needle in needles),
    ]
    ports = {port for _, port in listening("seaweedfs")}

    answers = {
        (port, method, path): _request(port, method, path) for port in ports for method in METHODS for path in paths
    }
    with contextlib.closing(servers.s3()) as s3:
        body = s3.get_object(Bucket=connections.bucket, Key=guarded_object)["Body"].read()
        keys = [entry["Key"] for entry in s3.list_objects_v2(Bucket=connections.bucket, Prefix="")["Contents"]]

    assert len(ports) == 10
    assert needles
    assert [key for key, (_, content) in answers.items() if SECRET_BODY[:36] in content] == []
    assert {key: status for key, (status, _) in answers.items() if status is not None and status < 400} == {}
    assert body == SECRET_BODY
    assert "planted.bin" not in keys


def test_the_place_of_an_object_on_disk_is_known_so_that_the_test_above_asks_for_what_exists(
    embedded_stack, listening, guarded_object
):
    key = (embedded_stack.data_dir / "secrets" / "seaweedfs-read-key").read_text()
    ports = json.loads((embedded_stack.data_dir / "seaweedfs" / "ports.json").read_text())
    found = []

    for needle in _needles(embedded_stack.data_dir / "seaweedfs"):
        token = _token(key, needle)
        found.append(_request(ports["volume"], "GET", f"/{needle}", {"Authorization": f"Bearer {token}"}))

    assert any(status == 200 and content == SECRET_BODY for status, content in found)


def _command_line(process):
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _request(port, method, path, headers=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5.0)
    try:
        connection.request(method, path, body=b"planted" if method in {"PUT", "POST"} else None, headers=headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException):
        # The gRPC ports do not speak HTTP/1.1.
        return None, b""
    finally:
        connection.close()


def _needles(directory):
    """The addresses of all pieces of objects, read from the storage's own files: volume, key and cookie."""
    found = []
    for index in directory.glob("*.idx"):
        data = index.with_suffix(".dat").read_bytes()
        volume = index.stem.rsplit("_", 1)[-1]
        whole = index.stat().st_size // _ENTRY.size * _ENTRY.size
        for key, low, high, size in _ENTRY.iter_unpack(index.read_bytes()[:whole]):
            if size > 0:
                cookie = struct.unpack_from(">I", data, ((high << 32) + low) * 8)[0]
                found.append(f"{volume},{key:x}{cookie:08x}")
    return found


def _token(key, needle):
    def part(value):
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=")

    signed = part({"alg": "HS256", "typ": "JWT"}) + b"." + part({"exp": int(time.time()) + 60, "fid": needle})
    signature = base64.urlsafe_b64encode(hmac.digest(key.encode(), signed, hashlib.sha256)).rstrip(b"=")
    return (signed + b"." + signature).decode()
