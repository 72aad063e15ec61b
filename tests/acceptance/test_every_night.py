"""Labels to a promoted model, over two nights, by the commands a person types and on real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from defectoscope.samples import generate_samples
from tests.acceptance.waiting import wait_until

#: A training that takes seconds: what it learns does not matter, what becomes of it does.
RECIPE = {"epochs": 3, "batch_size": 4, "input_size_wh": [64, 64], "half_size_share": 0, "learning_rate": 0.003}
SETTINGS = {
    "DEFECTOSCOPE_NIGHT__DATASET": "steel",
    "DEFECTOSCOPE_NIGHT__MIN_NEW_LABELS": "4",
    "DEFECTOSCOPE_NIGHT__PRESET": "quick",
    "DEFECTOSCOPE_NIGHT__RECIPE": json.dumps({name: RECIPE[name] for name in ("epochs", "batch_size")}),
    # Each minute of an hour, so that a slow machine cannot start too late for it: one of the rings has to count. The
    # clock is moved to that hour below.
    "DEFECTOSCOPE_NIGHT__CRONTAB": "* 2 * * *",
    "DEFECTOSCOPE_NIGHT__TIMEZONE": "Asia/Yekaterinburg",
    "DEFECTOSCOPE_GATE__MIN_GROUPS": "1",
    "DEFECTOSCOPE_GATE__FIRST_MIN_IOU": "0",
    "DEFECTOSCOPE_GATE__MIN_POOLED_IOU": "0.0001",
    "DEFECTOSCOPE_INSPECTION__RECONCILE_INTERVAL_S": "2",
    "DEFECTOSCOPE_INSPECTION__CHUNK_SIZE": "2",
    "DEFECTOSCOPE_TRAINER__LEASE_S": "10",
}
#: Five in the afternoon in Yekaterinburg, far from the hour above: a day that began within it would ring for a night.
DAY_UTC = timedelta(hours=12)
#: A quarter of a minute before 2:05 in Yekaterinburg.
NIGHT_UTC = timedelta(hours=21, minutes=4, seconds=45)


def _set_clock(system, time_utc, *, days=0):
    """Let the system's next start find it so late, so many days from today."""
    now = datetime.now(UTC)
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    offset_s = round((midnight + time_utc + timedelta(days=days) - now).total_seconds())
    system.environment["DEFECTOSCOPE_NIGHT__CLOCK_OFFSET_S"] = str(offset_s)


def _recipe(**changes):
    return [part for name, value in {**RECIPE, **changes}.items() for part in ("--set", f"{name}={json.dumps(value)}")]


def _second_beat(system):
    return subprocess.Popen(
        [sys.executable, "-m", "celery", "--quiet", "-A", "trainer.app", "beat"],
        env=system.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _champion(system, *as_of):
    in_service = system.ask("models", "history", *as_of)["in_service"]
    return in_service and in_service["model_version"]


# Everything below is one story; each fixture is its next part, and the tests look at what it left.
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def labels(tmp_path_factory):
    directory = tmp_path_factory.mktemp("labels")
    generate_samples(directory / "day1", count=20, seed=5)
    generate_samples(directory / "day2", count=10, seed=6)
    generate_samples(directory / "batch", count=12, seed=7, layout="flat")
    return directory


@pytest.fixture(scope="module")
def night_system(make_system):
    return make_system(**SETTINGS)


@pytest.fixture(scope="module")
def day(night_system, labels):
    """By day: labels, a training, the first version, further labels."""
    system = night_system
    _set_clock(system, DAY_UTC)
    system.start()
    system.ask("datasets", "import", str(labels / "day1"), "--name", "steel")
    before = datetime.now(UTC)
    first = system.ask("training", "start", "--dataset", "steel", "--preset", "quick", *_recipe(), "--watch")
    after = datetime.now(UTC)
    extended = system.ask("datasets", "import", str(labels / "day2"), "--name", "steel", "--extend")
    champion = _champion(system)
    assert system.stop() == 0
    return {"before": before, "after": after, "run": first, "dataset": extended["dataset"], "champion": champion}


@pytest.fixture(scope="module")
def night(night_system, day):
    """The night comes, with two beats, and the trainer is killed in the middle of it."""
    system = night_system
    _set_clock(system, NIGHT_UTC)
    system.start()
    beat = _second_beat(system)
    try:
        wait_until(lambda: system.ask("training", "nights")["items"], within_s=120)
        run_id = system.ask("training", "nights")["items"][0]["training_run_id"]
        wait_until(lambda: system.ask("training", "show", str(run_id))["checkpoint_epoch"], within_s=120)
        for process_id in system.process_ids("trainer run"):
            os.kill(process_id, signal.SIGKILL)
        run = system.ask("training", "watch", str(run_id))
    finally:
        beat.terminate()
        beat.wait(timeout=20)
    return {"run": run, "nights": system.ask("training", "nights")["items"]}


@pytest.fixture(scope="module")
def promotion(night_system, night, labels):
    """A person promotes the second version while a job on the first is under way, and undoes it."""
    system = night_system
    history = system.ask("models", "history")
    if night["run"]["figures"]["gate"]["promoted"]:
        system.ask("models", "rollback", "--reason", "to see a promotion by hand")
    old_job = system.ask("jobs", "submit", str(labels / "batch"), "--qa-min-iou", "0")
    before = datetime.now(UTC)
    system.ask("models", "promote", "2", "--reason", "a person decides")
    after = datetime.now(UTC)
    new_job = system.ask("jobs", "submit", str(labels / "batch"), "--qa-min-iou", "0", "--watch")
    old_job = system.ask("jobs", "watch", str(old_job["id"]))
    promoted_at = datetime.fromisoformat(system.ask("models", "history")["items"][0]["created_at"])
    wait_until(lambda: _warm_since(system, promoted_at), within_s=15)
    warm_at = min(_warm_since(system, promoted_at))
    system.ask("models", "rollback", "--reason", "false calls on line 2")
    return {
        "history": history,
        "jobs": (old_job, new_job),
        "before": before,
        "after": after,
        "switched_in": warm_at - promoted_at,
    }


def _warm_since(system, moment):
    """When a worker said that it is warm on the second version, after a moment."""
    told = [event for event in system.ask("events", "list")["items"] if event["kind"] == "worker.switched"]
    at = [datetime.fromisoformat(event["created_at"]) for event in told if event["subject"] == "model:2"]
    return [warm for warm in at if warm > moment]


def test_a_first_version_goes_into_service_by_day(day):
    assert (day["run"]["state"], day["run"]["model_version"]) == ("succeeded", 1)
    assert day["champion"] == 1
    assert day["dataset"]["reference"] == "steel@2"


def test_two_beats_make_one_night_and_one_run(night):
    [held] = night["nights"]

    assert (held["state"], held["training_run_id"]) == ("started", night["run"]["id"])


def test_a_killed_trainer_goes_on_from_its_checkpoint(night):
    run = night["run"]

    assert (run["state"], run["model_version"], run["attempts"]) == ("succeeded", 2, 2)
    assert run["figures"]["resumed_after"] >= 1


def test_the_night_trains_the_new_labels_from_the_champion(night):
    run = night["run"]

    assert (run["trigger"], run["dataset"]) == ("night", "steel@2")
    assert run["figures"]["encoder_weights_used"] == "champion"


def test_the_challenger_is_promoted_or_refused_as_its_figures_say(night, promotion):
    gate = night["run"]["figures"]["gate"]
    newest = promotion["history"]["items"][0]

    assert (newest["model_version"], newest["action"]) == (2, "promoted" if gate["promoted"] else "refused")
    assert newest["reason"] == gate["reason"]
    assert promotion["history"]["in_service"]["model_version"] == (2 if gate["promoted"] else 1)


def test_a_job_ends_on_the_version_it_began_with_and_the_next_one_has_the_new(promotion):
    old, new = promotion["jobs"]

    assert (old["model_version"], old["state"], old["images"]["succeeded"]) == (1, "succeeded", 12)
    assert (new["model_version"], new["state"], new["images"]["succeeded"]) == (2, "succeeded", 12)


def test_workers_are_warm_on_a_promoted_version_within_ten_seconds(promotion):
    assert promotion["switched_in"] < timedelta(seconds=10)


def test_the_ledger_answers_for_each_moment(night_system, day, promotion):
    moments = [day["before"], day["after"], promotion["before"], promotion["after"]]

    in_service = [_champion(night_system, "--as-of", moment.isoformat()) for moment in moments]

    assert in_service == [None, 1, 1, 2]
    assert _champion(night_system) == 1


def test_the_night_after_is_skipped_because_nothing_is_new(night_system, promotion):
    system = night_system
    assert system.stop() == 0
    _set_clock(system, NIGHT_UTC, days=1)

    system.start()
    wait_until(lambda: len(system.ask("training", "nights")["items"]) == 2, within_s=120)

    skipped = system.ask("training", "nights")["items"][0]
    assert (skipped["state"], skipped["training_run_id"]) == ("skipped", None)
    assert skipped["reason"] == "0 labels of steel@2 are new; 4 are needed."
    assert _champion(system) == 1
