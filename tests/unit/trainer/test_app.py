"""The Celery side of the trainer: what it takes, what it sends, and what it does without."""

from __future__ import annotations

import os
import subprocess
import sys

from defectoscope.queue import messages
from trainer.schedule import schedule

_LOOK = """
import sys
from trainer.app import app
print(app.conf.beat_scheduler)
print(app.tasks["training.run"].acks_late)
print([name for name in ("torch", "onnxruntime", "numpy") if name in sys.modules])
"""


def _run(tmp_path, **environment):
    return subprocess.run(
        [sys.executable, "-c", _LOOK],
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


def test_reconciliation_is_asked_for_on_the_queue_that_never_waits():
    (entry,) = schedule(reconcile_interval_s=15).values()

    assert entry["task"] == messages.RECONCILE
    assert entry["schedule"] == 15
    assert entry["options"] == {"queue": messages.CONTROL_QUEUE, "expires": 15}
