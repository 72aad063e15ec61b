from __future__ import annotations

from datetime import UTC, date, datetime

import pytest

from defectoscope.database import DatasetRevision, Night, NightState, RunTrigger, TrainingRunState
from defectoscope.errors.training import ExportParityFailed
from defectoscope.training import (
    add_stage_seconds,
    claim_run,
    complete_run,
    fail_run,
    record_figures,
    record_metrics,
    release_run,
    report_stage,
    request_training,
)
from defectoscope.training.progress import (
    EndedRuns,
    RunningRun,
    count_ended_runs,
    count_nights,
    count_unfinished_runs,
    list_running_runs,
    sum_stage_seconds,
)
from defectoscope.training.queries import view_run


@pytest.fixture
def revision_id(database):
    with database.transaction() as session:
        revision = DatasetRevision(name="d", number=1, sha256="0" * 64, manifest_key="k", train_count=1, val_count=1)
        session.add(revision)
        session.flush()
        return revision.id


@pytest.fixture
def request_run(database, queue, revision_id):
    def ask(trigger=RunTrigger.MANUAL):
        with database.transaction() as session:
            return request_training(
                session=session, queue=queue, dataset_revision_id=revision_id, config={}, trigger=trigger
            )

    return ask


@pytest.fixture
def claim(database, request_run):
    def take(run_id=None, trigger=RunTrigger.MANUAL):
        return claim_run(database=database, run_id=run_id or request_run(trigger), owner="trainer", lease_s=60)

    return take


@pytest.fixture
def ask(database):
    def read(query):
        with database.transaction() as session:
            return query(session)

    return read


def test_runs_are_counted_by_how_they_stand_and_how_they_ended(database, request_run, claim, ask):
    request_run()
    claim()
    complete_run(database=database, run=claim())
    for _ in range(2):
        fail_run(database=database, run=claim(trigger=RunTrigger.NIGHT), error=ExportParityFailed())

    assert ask(count_unfinished_runs) == {TrainingRunState.PENDING: 1, TrainingRunState.RUNNING: 1}
    ended = ask(count_ended_runs)
    assert sorted((runs.trigger, runs.state, runs.code, runs.count) for runs in ended) == [
        (RunTrigger.MANUAL, TrainingRunState.SUCCEEDED, "", 1),
        (RunTrigger.NIGHT, TrainingRunState.FAILED, "export_parity_failed", 2),
    ]
    assert all(isinstance(runs, EndedRuns) for runs in ended)


def test_a_running_run_shows_its_stage_its_last_epoch_and_its_best(database, claim, ask):
    run = claim()
    report_stage(database=database, run=run, stage="training", lease_s=60)
    for epoch, iou in enumerate((0.2, 0.7, 0.6), 1):
        values = {"val_iou_best": iou, "images_per_s": 10.0 * epoch}
        record_metrics(database=database, run=run, epoch=epoch, values=values)

    assert ask(list_running_runs) == [
        RunningRun(
            run_id=run.run_id,
            stage="training",
            epochs=3,
            figures={"val_iou_best": 0.6, "images_per_s": 30.0},
            best_iou=0.7,
        )
    ]


def test_a_run_that_has_just_begun_has_no_figures(claim, ask):
    run = claim()

    assert ask(list_running_runs) == [RunningRun(run_id=run.run_id, stage="", epochs=0, figures={}, best_iou=None)]


def test_the_time_of_a_stage_adds_up_over_trainers_and_runs(database, claim, ask):
    first = claim()
    record_figures(database=database, run=first, figures={"device": "cpu"})
    add_stage_seconds(database=database, run=first, stage="training", seconds=5.0)
    release_run(database=database, run=first, count_attempt=False)
    again = claim(first.run_id)
    add_stage_seconds(database=database, run=again, stage="training", seconds=2.5)
    add_stage_seconds(database=database, run=again, stage="gate", seconds=1.25)
    add_stage_seconds(database=database, run=claim(), stage="training", seconds=1.0)

    assert ask(lambda session: view_run(session, first.run_id)).run.figures == {
        "device": "cpu",
        "stage_seconds": {"training": 7.5, "gate": 1.25},
    }
    assert ask(sum_stage_seconds) == {"training": 8.5, "gate": 1.25}


def test_a_run_that_is_no_longer_ours_is_not_written_to(database, claim, ask):
    stale = claim()
    release_run(database=database, run=stale, count_attempt=False)
    claim(stale.run_id)

    assert not add_stage_seconds(database=database, run=stale, stage="training", seconds=1.0)
    assert ask(sum_stage_seconds) == {}


def test_nights_are_counted_and_the_last_one_is_dated(database, ask):
    held_at = datetime(2026, 11, 22, 2, tzinfo=UTC)
    before = ask(count_nights)
    with database.transaction() as session:
        for day, state in ((21, NightState.SKIPPED), (22, NightState.STARTED)):
            moment = held_at.replace(day=day)
            session.add(Night(night=date(2026, 11, day), state=state, reason="Because.", created_at=moment))

    after = ask(count_nights)

    assert (before.held, before.last_at_s) == ({NightState.STARTED: 0, NightState.SKIPPED: 0}, None)
    assert (after.held, after.last_at_s) == ({NightState.STARTED: 1, NightState.SKIPPED: 1}, held_at.timestamp())
