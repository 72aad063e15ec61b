"""The Celery side of the trainer: what it takes, what it sends, and what it does without."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest

from defectoscope.errors.installation import SettingMissing
from defectoscope.queue import messages
from defectoscope.settings import NightSettings
from trainer.schedule import schedule

_LOOK = """
import sys
from trainer.app import app
print(app.conf.beat_scheduler)
print(app.tasks["training.run"].acks_late)
print([name for name in ("torch", "onnxruntime", "numpy") if name in sys.modules])
"""


def _run(tmp_path, script=_LOOK, **environment):
    return subprocess.run(
        [sys.executable, "-c", script],
        env={
            **{name: value for name, value in os.environ.items() if not name.startswith("DEFECTOSCOPE_")},
            "DEFECTOSCOPE_CONNECTION_FILE": str(tmp_path / "no-connection.env"),
            **environment,
        },
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_application_holds_no_torch_and_beat_writes_no_file(tmp_path):
    run = _run(tmp_path, DEFECTOSCOPE_QUEUE__URL="redis://127.0.0.1:9/0")

    scheduler, acks_late, heavy = run.stdout.splitlines()
    assert run.returncode == 0, run.stderr
    assert scheduler == "celery.beat:Scheduler"
    assert acks_late == "False"
    assert heavy == "[]"


def test_a_missing_setting_is_one_sentence_and_no_traceback(tmp_path):
    run = _run(tmp_path)

    assert run.returncode == 1
    assert run.stderr.startswith("error: DEFECTOSCOPE_QUEUE__URL is not set")
    assert len(run.stderr.splitlines()) == 1


def _schedule(**night):
    return schedule(reconcile_interval_s=15, night=NightSettings(**night))


def test_reconciliation_is_asked_for_on_the_queue_that_never_waits():
    entry = _schedule()["reconcile"]

    assert entry["task"] == messages.RECONCILE
    assert entry["schedule"].run_every == timedelta(seconds=15)
    assert entry["options"] == {"queue": messages.CONTROL_QUEUE, "expires": 60}


def test_unused_objects_are_looked_for_often_enough_to_follow_a_dead_collector_and_never_when_that_is_switched_off():
    entry = _schedule()["collect"]
    without = schedule(reconcile_interval_s=15, night=NightSettings(), collect_objects=False)

    assert entry["task"] == messages.COLLECT_OBJECTS
    assert entry["schedule"].run_every == timedelta(minutes=10)
    assert entry["options"] == {"queue": messages.CONTROL_QUEUE, "expires": 600}
    assert list(without) == ["reconcile"]


def test_the_night_is_asked_for_by_a_crontab_when_a_dataset_is_named():
    entry = _schedule(dataset="steel", crontab="30 2 * * 1-5")["night"]

    assert entry["task"] == messages.START_NIGHT
    assert entry["options"]["queue"] == messages.CONTROL_QUEUE
    assert (entry["schedule"].hour, entry["schedule"].minute) == ({2}, {30})
    assert entry["schedule"].day_of_week == {1, 2, 3, 4, 5}


@pytest.mark.parametrize("crontab", ["at two", "0 2 * *", "61 2 * * *", ""])
def test_a_crontab_that_is_none_is_named(crontab):
    with pytest.raises(SettingMissing, match="DEFECTOSCOPE_NIGHT__CRONTAB"):
        _schedule(dataset="steel", crontab=crontab)


@pytest.mark.parametrize(
    ("timezone", "local_time"),
    [pytest.param("UTC", time(2, 0), id="UTC"), pytest.param("Asia/Yekaterinburg", time(2, 0), id="far away")],
)
def test_the_clock_can_be_moved_to_just_before_the_night(tmp_path, timezone, local_time):
    now = datetime.now(ZoneInfo(timezone))
    night = datetime.combine(now.date(), local_time, tzinfo=now.tzinfo)
    to_five_seconds_before = round((night - now).total_seconds()) - 5

    run = _run(
        tmp_path,
        "from celery.beat import Scheduler; from trainer.app import app; beat = Scheduler(app); beat.populate_heap();"
        "first = beat._heap[0]; print(first.entry.name, first.entry.is_due().next)",
        DEFECTOSCOPE_QUEUE__URL="redis://127.0.0.1:9/0",
        DEFECTOSCOPE_NIGHT__DATASET="steel",
        DEFECTOSCOPE_NIGHT__TIMEZONE=timezone,
        DEFECTOSCOPE_NIGHT__CLOCK_OFFSET_S=str(to_five_seconds_before),
    )

    assert run.returncode == 0, run.stderr
    name, seconds = run.stdout.split()
    # Beat sleeps until the first of its entries, so this one has to be it.
    assert name == "night"
    assert float(seconds) <= 6
