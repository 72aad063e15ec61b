"""One run whose trainer is killed in every stage, one after the other, and that ends as if nothing had happened."""

from __future__ import annotations

import signal
import time
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import func, select, update

from defectoscope.database import LedgerAction, ModelVersion, Promotion, TrainingRun, TrainingRunState
from defectoscope.registry import find_champion
from defectoscope.training import reconcile_runs
from defectoscope.training.queries import view_run

_PATIENCE_S = 180
STAGES = (
    "data",
    "training",
    "export",
    "operating point",
    "evaluation",
    "parity",
    "fp16",
    "int8",
    "report",
    "publishing",
    "gate",
)


def _kill_in(stage, process, trainer, run_id):
    deadline = time.monotonic() + _PATIENCE_S
    while trainer.row(run_id).stage != stage:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, f"the run never came to {stage}"
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def _let_lease_run_out(database, queue):
    with database.transaction() as session:
        session.execute(update(TrainingRun).values(lease_expires_at=func.now() - timedelta(seconds=1)))
    reconcile_runs(database=database, queue=queue, resend_after_s=60, max_attempts=100)


# Twelve processes that import torch, one after the other.
@pytest.mark.timeout(900)
def test_a_run_whose_trainer_is_killed_in_every_stage_publishes_once_and_is_judged_once(
    trainer, revision, database, queue, storage
):
    run_id = trainer.request(revision, epochs=2)
    versions_seen = []

    for stage in STAGES:
        _kill_in(stage, trainer.start(run_id), trainer, run_id)
        _let_lease_run_out(database, queue)
        with database.transaction() as session:
            versions_seen.append(list(session.scalars(select(ModelVersion.number))))
    process = trainer.start(run_id)
    output, _ = process.communicate(timeout=_PATIENCE_S)

    assert process.returncode == 0, output
    with database.transaction() as session:
        view = view_run(session, run_id)
        versions = session.scalars(select(ModelVersion)).all()
        lines = session.scalars(select(Promotion)).all()
        champion = find_champion(session)
    # Nothing half-made was ever to be seen: a version is there from the gate on, and none before.
    assert versions_seen == [[]] * (len(STAGES) - 1) + [[1]]
    assert (view.run.state, view.run.attempts) == (TrainingRunState.SUCCEEDED, len(STAGES) + 1)
    assert sorted(view.metrics) == [1, 2]
    assert [(version.number, version.training_run_id) for version in versions] == [(1, run_id)]
    assert [(line.action, line.actor) for line in lines] == [(LedgerAction.PROMOTED, f"training run {run_id}")]
    assert champion.number == 1
    assert view.run.report_key is not None
    assert storage.exists(view.run.report_key)
    # What only a killed trainer would need is gone.
    assert [info.key for info in storage.list(f"training/{run_id}/checkpoints/")] == []
    assert list(Path(trainer.environment["DEFECTOSCOPE_TRAINER__WORK_DIR"]).glob("run-*")) == []
