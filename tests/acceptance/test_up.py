"""`defectoscope up`: starts, mends, stops, and keeps its data."""

from __future__ import annotations

import contextlib
import getpass
import os
import pty
import re
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

from defectoscope.samples import generate_samples


def test_a_killed_worker_is_restarted_and_its_images_are_not_lost(system, tmp_path):
    generate_samples(tmp_path, count=24, seed=8, layout="flat")
    job = system.ask("jobs", "submit", str(tmp_path))
    (worker,) = system.process_ids("celery --quiet -A worker.app")

    os.kill(worker, signal.SIGKILL)
    ended = system.run("jobs", "watch", str(job["id"]))

    shown = system.ask("jobs", "show", str(job["id"]))
    assert shown["images"]["succeeded"] == 24, ended.stderr
    assert re.search(r"defectoscope \| worker .*; starting it again in 1 s", system.log_path.read_text())


def test_ctrl_c_stops_everything_and_a_restart_finds_the_data(make_system):
    system = make_system()
    system.start()
    system.ask("datasets", "list")

    started = time.monotonic()
    status = system.stop()
    took_s = time.monotonic() - started

    assert status == 0
    assert took_s < 10
    assert system.process_ids() == []
    assert not Path(system.environment["DEFECTOSCOPE_CONNECTION_FILE"]).exists()
    refused = system.run("jobs", "list")
    assert refused.returncode == 1
    assert "api_unavailable" in refused.stderr


def test_the_first_admin_token_is_shown_once_to_a_person_and_kept_for_the_terminals_of_its_owner(make_system):
    system = make_system()

    first = shown_at_a_terminal(system)
    listed = system.ask("tokens", "list")["items"]
    connection = Path(system.environment["DEFECTOSCOPE_CONNECTION_FILE"])
    kept = system.data_dir / "secrets" / "admin-token"
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (connection, kept)}
    token = kept.read_text().strip()
    in_connection_file = token in connection.read_text()
    system.stop()
    second = shown_at_a_terminal(system)
    listed_again = system.ask("tokens", "list")["items"]
    system.stop()
    logs = "".join(path.read_text() for path in (system.data_dir / "logs").iterdir())

    assert first.count(token) == 1
    assert modes == {0o600}
    assert in_connection_file
    assert [(entry["scope"], entry["name"]) for entry in listed] == [("admin", getpass.getuser())]
    assert token not in second
    assert [entry["id"] for entry in listed_again] == [listed[0]["id"]]
    assert token not in logs


def shown_at_a_terminal(system):
    """Start a system at a terminal of its own and return what it shows until it is ready."""
    ours, theirs = pty.openpty()
    system.process = subprocess.Popen(
        [sys.executable, "-m", "defectoscope", "up", "--data-dir", str(system.data_dir), "--port", "0"],
        env=system.environment,
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=subprocess.STDOUT,
    )
    os.close(theirs)
    shown = b""
    deadline = time.monotonic() + 60
    while b" ready at " not in shown:
        assert time.monotonic() < deadline, shown.decode()[-3000:]
        shown += os.read(ours, 65536)
    # What comes after it still has to go somewhere.
    threading.Thread(target=drain, args=[ours], daemon=True).start()
    return shown.decode()


def drain(descriptor):
    with contextlib.suppress(OSError):
        while os.read(descriptor, 65536):
            pass


def test_the_token_is_not_shown_where_it_would_be_written_down(system):
    token = (system.data_dir / "secrets" / "admin-token").read_text().strip()

    shown = system.log_path.read_text()

    assert "the first admin token was made and is kept in" in shown
    assert token not in shown


def test_a_second_up_on_the_same_data_is_refused_in_one_sentence(system):
    refused = system.run("up", "--data-dir", str(system.data_dir), "--port", "0")

    assert refused.returncode == 1
    assert "data_directory_busy" in refused.stderr
