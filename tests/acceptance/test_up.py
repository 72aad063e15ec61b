"""`defectoscope up`: starts, mends, stops, and keeps its data."""

from __future__ import annotations

import os
import re
import signal
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


def test_a_second_up_on_the_same_data_is_refused_in_one_sentence(system):
    refused = system.run("up", "--data-dir", str(system.data_dir), "--port", "0")

    assert refused.returncode == 1
    assert "data_directory_busy" in refused.stderr
