"""What a person does with a training run once it is asked for: end it, read its page, see which night asked for it."""

from __future__ import annotations

from datetime import timedelta

import pytest

from defectoscope.database import DatasetRevision, RunTrigger
from defectoscope.nights import NightPlan, hold_night
from defectoscope.training import (
    Checkpoint,
    claim_run,
    complete_run,
    record_checkpoint,
    record_report,
    request_training,
)


@pytest.fixture
def request_run(services):
    with services.database.transaction() as session:
        revision = DatasetRevision(name="d", number=1, sha256="0" * 64, manifest_key="k", train_count=1, val_count=1)
        session.add(revision)
        session.flush()
        revision_id = revision.id

    def request_run(**options):
        with services.database.transaction() as session:
            return request_training(
                session=session, queue=services.queue, dataset_revision_id=revision_id, config={}, **options
            )

    return request_run


def _claim(services, run_id):
    return claim_run(database=services.database, run_id=run_id, owner="test", lease_s=60)


def test_a_run_is_cancelled_once(client, request_run):
    run_id = request_run()

    first = client.post(f"/v1/training-runs/{run_id}/cancel")
    second = client.post(f"/v1/training-runs/{run_id}/cancel")

    run = first.json()
    assert (first.status_code, run["state"], run["error"]["code"]) == (200, "failed", "training_cancelled")
    assert (second.status_code, second.json()["error"]["code"]) == (409, "training_run_not_cancellable")


def test_a_run_says_who_asked_for_it_and_where_it_could_go_on(client, services, request_run):
    run_id = request_run(trigger=RunTrigger.NIGHT)
    claimed = _claim(services, run_id)
    record_checkpoint(database=services.database, run=claimed, checkpoint=Checkpoint(key="k", sha256="0" * 64, epoch=7))

    run = client.get(f"/v1/training-runs/{run_id}").json()

    assert (run["trigger"], run["attempts"], run["checkpoint_epoch"]) == ("night", 1, 7)
    assert run["has_report"] is False


def test_the_report_of_a_run_is_downloaded_and_never_run_as_part_of_this_site(client, services, request_run):
    run_id = request_run()
    claimed = _claim(services, run_id)
    before = client.get(f"/v1/training-runs/{run_id}/report")
    services.storage.put("training/1/report.html", b"<h1>curves</h1>", content_type="text/html")
    record_report(database=services.database, run=claimed, key="training/1/report.html")
    complete_run(database=services.database, run=claimed)

    after = client.get(f"/v1/training-runs/{run_id}/report")

    assert (before.status_code, before.json()["error"]["code"]) == (404, "report_not_found")
    assert (after.status_code, after.content) == (200, b"<h1>curves</h1>")
    assert after.headers["content-disposition"] == f'attachment; filename="training-run-{run_id}.html"'
    assert after.headers["content-security-policy"] == "default-src 'none'; sandbox"


def test_nights_are_walked_once_newest_first_with_their_reasons(client, services, walk):
    plan = {"dataset": "steel", "config": {}, "min_new_labels": 1, "timezone": "UTC"}
    for day in range(3):
        hold_night(
            database=services.database,
            queue=services.queue,
            plan=NightPlan(**plan, clock_offset=timedelta(days=day)),
        )

    nights = walk("/v1/nights", limit=1)

    assert [night["state"] for night in nights] == ["skipped"] * 3
    assert sorted({night["night"] for night in nights}, reverse=True) == [night["night"] for night in nights]
    assert nights[0]["reason"] == "There is no dataset steel."
