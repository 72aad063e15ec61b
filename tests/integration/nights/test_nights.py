from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta

import pytest
from sqlalchemy import func, select, text

from defectoscope.database import (
    DatasetItem,
    DatasetRevision,
    Image,
    Label,
    Night,
    NightState,
    RunTrigger,
    Split,
    TrainingRun,
)
from defectoscope.events import list_events
from defectoscope.nights import NightPlan, hold_night, list_nights, night_of
from defectoscope.queue import messages

DAY = timedelta(days=1)


def _plan(**changes):
    plan = {"dataset": "steel", "config": {"preset": "quick"}, "min_new_labels": 3, "timezone": "UTC"}
    return NightPlan(**{**plan, **changes})


@pytest.fixture
def add_revision(database):
    """Make the next revision of steel, with so many labels; every revision holds those of the one before."""

    def add_revision(labels):
        with database.transaction() as session:
            number = (session.scalar(select(func.max(DatasetRevision.number))) or 0) + 1
            revision = DatasetRevision(
                name="steel", number=number, sha256=f"{number:064}", manifest_key="k", train_count=labels, val_count=1
            )
            session.add(revision)
            session.flush()
            for index in range(labels):
                sha256 = f"{index:064}"
                label = session.scalar(select(Label).where(Label.sha256 == sha256))
                if label is None:
                    image = Image(
                        sha256=sha256, key="k", size_bytes=1, width=8, height=8, format="PNG", source_mode="L"
                    )
                    session.add(image)
                    session.flush()
                    label = Label(image_id=image.id, key="k", sha256=sha256, defect_px=1, source="dataset:steel")
                    session.add(label)
                    session.flush()
                session.add(
                    DatasetItem(
                        revision_id=revision.id,
                        image_id=label.image_id,
                        label_id=label.id,
                        name=str(index),
                        split=Split.TRAIN,
                    )
                )
            return revision.id

    return add_revision


def _end_run(database, *, state="succeeded"):
    with database.transaction() as session:
        session.execute(text("UPDATE training_runs SET state = :state"), {"state": state})


def _runs(database):
    with database.transaction() as session:
        return session.scalars(select(TrainingRun).order_by(TrainingRun.id)).all()


@pytest.mark.parametrize(
    ("moment", "timezone", "expected"),
    [
        pytest.param(datetime(2026, 11, 24, 2, tzinfo=UTC), "UTC", date(2026, 11, 23), id="after midnight"),
        pytest.param(datetime(2026, 11, 23, 23, tzinfo=UTC), "UTC", date(2026, 11, 23), id="before midnight"),
        pytest.param(datetime(2026, 11, 23, 12, tzinfo=UTC), "UTC", date(2026, 11, 23), id="noon begins one"),
        pytest.param(datetime(2026, 11, 23, 11, 59, tzinfo=UTC), "UTC", date(2026, 11, 22), id="before noon"),
        pytest.param(
            datetime(2026, 11, 23, 8, tzinfo=UTC), "Asia/Yekaterinburg", date(2026, 11, 23), id="noon is local"
        ),
        pytest.param(
            datetime(2026, 10, 25, 11, tzinfo=UTC), "Europe/Berlin", date(2026, 10, 25), id="the clock was put back"
        ),
    ],
)
def test_a_night_has_the_date_of_its_evening(moment, timezone, expected):
    assert night_of(moment, timezone=timezone) == expected


def test_a_night_with_enough_new_labels_asks_for_one_run(database, queue, add_revision):
    revision_id = add_revision(3)

    night = hold_night(database=database, queue=queue, plan=_plan())

    (run,) = _runs(database)
    assert (night.state, night.new_labels, night.training_run_id) == (NightState.STARTED, 3, run.id)
    assert (run.dataset_revision_id, run.trigger, run.config) == (revision_id, RunTrigger.NIGHT, {"preset": "quick"})
    assert queue.messages == [messages.run_training(run.id)]


def test_a_second_ring_in_the_same_night_does_nothing(database, queue, add_revision):
    add_revision(3)

    with ThreadPoolExecutor(4) as pool:
        held = list(pool.map(lambda _: hold_night(database=database, queue=queue, plan=_plan()), range(8)))

    assert sum(night is not None for night in held) == 1
    assert len(_runs(database)) == 1


def test_the_next_night_counts_what_was_labelled_since_the_last_successful_run(database, queue, add_revision):
    add_revision(3)
    hold_night(database=database, queue=queue, plan=_plan())
    _end_run(database)
    add_revision(5)

    skipped = hold_night(database=database, queue=queue, plan=_plan(clock_offset=DAY))
    add_revision(6)
    started = hold_night(database=database, queue=queue, plan=_plan(clock_offset=2 * DAY))

    assert (skipped.state, skipped.new_labels, skipped.training_run_id) == (NightState.SKIPPED, 2, None)
    assert skipped.reason == "2 labels of steel@2 are new; 3 are needed."
    assert (started.state, started.new_labels) == (NightState.STARTED, 3)


def test_labels_of_a_failed_run_are_still_new_the_night_after(database, queue, add_revision):
    add_revision(3)
    hold_night(database=database, queue=queue, plan=_plan())
    _end_run(database, state="failed")

    night = hold_night(database=database, queue=queue, plan=_plan(clock_offset=DAY))

    assert (night.state, night.new_labels) == (NightState.STARTED, 3)


@pytest.mark.parametrize("state", ["pending", "running"])
def test_a_night_during_a_training_is_skipped(database, queue, add_revision, state):
    add_revision(3)
    hold_night(database=database, queue=queue, plan=_plan())
    _end_run(database, state=state)

    night = hold_night(database=database, queue=queue, plan=_plan(clock_offset=DAY))

    assert (night.state, night.reason) == (NightState.SKIPPED, "Training run 1 has not ended.")


def test_a_dataset_that_is_not_there_skips_the_night_and_warns(database, queue):
    night = hold_night(database=database, queue=queue, plan=_plan())

    with database.transaction() as session:
        (event,) = list_events(session)
    assert (night.state, night.reason) == (NightState.SKIPPED, "There is no dataset steel.")
    assert (event.kind, event.severity.value) == ("night.skipped", "warning")


def test_nights_are_listed_newest_first(database, queue):
    for day in range(3):
        hold_night(database=database, queue=queue, plan=_plan(clock_offset=day * DAY))

    with database.transaction() as session:
        nights = list_nights(session)
        older = list_nights(session, before=nights[0].id, limit=1)
        count = session.scalar(select(func.count()).select_from(Night))

    assert [night.night - nights[-1].night for night in nights] == [2 * DAY, DAY, 0 * DAY]
    assert older == nights[1:2]
    assert count == 3
