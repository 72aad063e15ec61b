from __future__ import annotations

import pytest
from sqlalchemy import text

from defectoscope.database import DatasetRevision, TrainingRunState
from defectoscope.errors.training import ExportParityFailed, TrainingRunNotCancellable, TrainingRunNotFound
from defectoscope.events import list_events
from defectoscope.queue import messages
from defectoscope.training import (
    Checkpoint,
    cancel_run,
    claim_run,
    complete_run,
    fail_run,
    reconcile_runs,
    record_checkpoint,
    record_figures,
    record_metrics,
    record_report,
    release_run,
    report_stage,
    request_training,
)
from defectoscope.training.queries import view_run

SHA256 = "0" * 64
CHECKPOINT = Checkpoint(key="checkpoints/1", sha256=SHA256, epoch=3)


@pytest.fixture
def run_id(database, queue):
    with database.transaction() as session:
        revision = DatasetRevision(name="d", number=1, sha256=SHA256, manifest_key="k", train_count=1, val_count=1)
        session.add(revision)
        session.flush()
        return request_training(
            session=session, queue=queue, dataset_revision_id=revision.id, config={"max_epochs": 3, "lr": 1e-4}
        )


def _claim(database, run_id):
    return claim_run(database=database, run_id=run_id, owner="trainer", lease_s=60)


def _run(database, run_id):
    with database.transaction() as session:
        return view_run(session, run_id).run


def _metrics(database, run_id):
    with database.transaction() as session:
        return view_run(session, run_id).metrics


def _events(database):
    with database.transaction() as session:
        return [(event.kind, event.subject, event.details["code"]) for event in list_events(session)]


def _let_lease_run_out(database):
    _execute(database, "UPDATE training_runs SET lease_expires_at = now() - interval '1 second'")


def _reconcile(database, queue):
    reconcile_runs(database=database, queue=queue, resend_after_s=60, max_attempts=2)


def _execute(database, statement):
    with database.transaction() as session:
        session.execute(text(statement))


def test_a_run_is_asked_for_after_the_commit_and_claimed_once(database, queue, run_id):
    claimed = _claim(database, run_id)
    second = _claim(database, run_id)

    assert queue.messages == [messages.run_training(run_id)]
    assert (claimed.config, claimed.token) == ({"max_epochs": 3, "lr": 1e-4}, 1)
    assert second is None
    assert _run(database, run_id).started_at is not None


def test_a_run_reports_its_stage_and_figures_and_ends_well(database, run_id):
    run = _claim(database, run_id)

    report_stage(database=database, run=run, stage="training", lease_s=60)
    record_metrics(database=database, run=run, epoch=1, values={"val_loss": 0.5, "val_iou": 0.1})
    record_metrics(database=database, run=run, epoch=2, values={"val_loss": 0.4})
    record_metrics(database=database, run=run, epoch=2, values={"val_loss": 0.3})
    record_metrics(database=database, run=run, epoch=3, values={})
    stage = _run(database, run_id).stage
    ended = complete_run(database=database, run=run)

    assert (stage, ended) == ("training", True)
    assert _metrics(database, run_id) == {1: {"val_iou": 0.1, "val_loss": 0.5}, 2: {"val_loss": 0.3}}
    row = _run(database, run_id)
    assert (row.state, row.stage, row.lease_owner) == (TrainingRunState.SUCCEEDED, None, None)
    with database.transaction() as session:
        assert [(event.kind, event.subject) for event in list_events(session)] == [
            ("training.succeeded", f"training_run:{run_id}")
        ]


def test_what_a_run_finds_is_added_up(database, run_id):
    run = _claim(database, run_id)
    before = _run(database, run_id).figures

    record_figures(database=database, run=run, figures={"device": "cpu", "seconds": 1.5})
    record_figures(database=database, run=run, figures={"seconds": 2.5, "parity": {"mask_iou": 1.0}})

    assert before is None
    assert _run(database, run_id).figures == {"device": "cpu", "seconds": 2.5, "parity": {"mask_iou": 1.0}}


def test_a_run_ends_with_a_named_error(database, run_id):
    run = _claim(database, run_id)

    fail_run(database=database, run=run, error=ExportParityFailed())

    row = _run(database, run_id)
    assert (row.state, row.error_code) == (TrainingRunState.FAILED, "export_parity_failed")
    assert _events(database) == [("training.failed", f"training_run:{run_id}", "export_parity_failed")]


def test_a_lost_message_is_sent_again_and_a_fresh_one_is_not(database, queue, run_id):
    queue.messages.clear()

    _reconcile(database, queue)
    fresh = list(queue.messages)
    _execute(database, "UPDATE training_runs SET dispatched_at = now() - interval '1 hour'")
    _reconcile(database, queue)
    _reconcile(database, queue)

    assert fresh == []
    assert queue.messages == [messages.run_training(run_id)]


def test_a_run_whose_trainer_is_silent_is_owed_again_and_the_silent_one_can_write_nothing_more(database, queue, run_id):
    run = _claim(database, run_id)
    record_checkpoint(database=database, run=run, checkpoint=CHECKPOINT)
    _let_lease_run_out(database)
    queue.messages.clear()

    _reconcile(database, queue)
    late = [
        report_stage(database=database, run=run, stage="exporting", lease_s=60),
        record_metrics(database=database, run=run, epoch=9, values={"val_loss": 0.1}),
        record_figures(database=database, run=run, figures={"best_epoch": 9}),
        record_checkpoint(database=database, run=run, checkpoint=Checkpoint(key="k", sha256=SHA256, epoch=9)),
        record_report(database=database, run=run, key="late"),
        release_run(database=database, run=run, count_attempt=True),
        complete_run(database=database, run=run),
        fail_run(database=database, run=run, error=ExportParityFailed()),
    ]
    second = _claim(database, run_id)

    row = _run(database, run_id)
    assert late == [False] * 8
    assert row.figures is None
    assert _metrics(database, run_id) == {}
    assert queue.messages == [messages.run_training(run_id)]
    assert (second.checkpoint, second.attempts, second.token) == (CHECKPOINT, 2, 2)


def test_a_run_that_silences_every_trainer_is_given_up(database, queue, run_id):
    for _ in range(2):
        _claim(database, run_id)
        _let_lease_run_out(database)
        _reconcile(database, queue)

    row = _run(database, run_id)
    assert (row.state, row.error_code, row.attempts) == (TrainingRunState.FAILED, "trainer_lost", 2)
    assert _claim(database, run_id) is None
    assert _events(database) == [("training.failed", f"training_run:{run_id}", "trainer_lost")]


@pytest.mark.parametrize(
    ("count_attempt", "attempts"), [pytest.param(True, 1, id="counted"), pytest.param(False, 0, id="not counted")]
)
def test_a_run_that_is_given_back_is_owed_at_once(database, queue, run_id, count_attempt, attempts):
    run = _claim(database, run_id)
    queue.messages.clear()

    release_run(database=database, run=run, count_attempt=count_attempt)
    row = _run(database, run_id)
    _reconcile(database, queue)

    assert (row.state, row.attempts, row.lease_owner) == (TrainingRunState.PENDING, attempts, None)
    assert queue.messages == [messages.run_training(run_id)]


@pytest.mark.parametrize("is_claimed", [pytest.param(True, id="running"), pytest.param(False, id="pending")])
def test_a_run_can_be_cancelled_until_it_has_ended(database, run_id, is_claimed):
    run = _claim(database, run_id) if is_claimed else None

    with database.transaction() as session:
        cancel_run(session, run_id)
    with pytest.raises(TrainingRunNotCancellable), database.transaction() as session:
        cancel_run(session, run_id)

    row = _run(database, run_id)
    assert (row.state, row.error_code) == (TrainingRunState.FAILED, "training_cancelled")
    assert run is None or not report_stage(database=database, run=run, stage=None, lease_s=60)
    assert _claim(database, run_id) is None


def test_a_trainer_that_reports_keeps_its_run(database, queue, run_id):
    run = _claim(database, run_id)
    _let_lease_run_out(database)

    report_stage(database=database, run=run, stage=None, lease_s=60)
    _reconcile(database, queue)

    assert _run(database, run_id).state is TrainingRunState.RUNNING


def test_a_run_that_does_not_exist_is_told_by_name(database):
    with pytest.raises(TrainingRunNotFound), database.transaction() as session:
        view_run(session, 1000)
