from __future__ import annotations

import os
import stat
import subprocess
import time

import pytest

from defectoscope.embedded.data_directory import DataDirectoryLock
from defectoscope.errors.installation import DataDirectoryBusy


def test_the_directory_is_made_for_its_owner_only(tmp_path):
    lock = DataDirectoryLock(tmp_path / "deep" / "data")
    lock.release()

    assert stat.S_IMODE((tmp_path / "deep" / "data").stat().st_mode) == 0o700


def test_a_held_directory_is_refused_at_once(tmp_path):
    lock = DataDirectoryLock(tmp_path)
    before_s = time.monotonic()

    with pytest.raises(DataDirectoryBusy, match="DEFECTOSCOPE_DATABASE__URL"):
        DataDirectoryLock(tmp_path)
    lock.release()

    assert time.monotonic() - before_s < 1.0


def test_a_released_directory_can_be_taken_again(tmp_path):
    DataDirectoryLock(tmp_path).release()

    again = DataDirectoryLock(tmp_path)
    again.release()

    assert (tmp_path / "lock").read_text() == str(os.getpid())


def test_the_servers_of_a_dead_owner_are_waited_for(tmp_path):
    lock = DataDirectoryLock(tmp_path)
    with subprocess.Popen(["sleep", "0.5"], pass_fds=(lock.descriptor,)) as server:
        with subprocess.Popen(["true"]) as dead:
            dead.wait()
        (tmp_path / "lock").write_text(str(dead.pid))
        lock.release()

        next_lock = DataDirectoryLock(tmp_path)
        ended = server.poll() is not None or server.wait(1.0) == 0
    next_lock.release()

    assert ended
