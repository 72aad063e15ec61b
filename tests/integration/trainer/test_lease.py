"""How long the stages of a run took, written down by whoever holds it."""

from __future__ import annotations

import time

import pytest

from defectoscope.database import TrainingRunState
from defectoscope.errors.training import ExportParityFailed
from defectoscope.training import claim_run
from trainer.interruption import Interruption
from trainer.lease import RunLease


@pytest.fixture
def lease(database, trainer, revision):
    run = claim_run(database=database, run_id=trainer.request(revision), owner="trainer", lease_s=60)
    return RunLease(run, database=database, lease_s=60, max_attempts=3, interruption=Interruption())


def test_every_stage_is_timed_to_the_end_of_the_run(lease, trainer):
    with lease.held():
        lease.stage("data")
        time.sleep(0.05)
        lease.stage("training")
        time.sleep(0.1)

    row = trainer.row(1)
    spent = row.figures["stage_seconds"]
    assert row.state is TrainingRunState.SUCCEEDED
    assert spent.keys() == {"data", "training"}
    assert 0.05 <= spent["data"] < 5
    assert 0.1 <= spent["training"] < 5


def test_the_stage_that_failed_is_timed_too(lease, trainer):
    def fail_in_a_stage():
        with lease.held():
            lease.stage("export")
            raise ExportParityFailed

    with pytest.raises(ExportParityFailed):
        fail_in_a_stage()

    row = trainer.row(1)
    assert (row.state, row.error_code) == (TrainingRunState.FAILED, "export_parity_failed")
    assert row.figures["stage_seconds"].keys() == {"export"}
