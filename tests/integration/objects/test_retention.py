"""Retention on rows of a real job: what is given up, what is spared, and what becomes of the objects."""

from __future__ import annotations

import pytest
from sqlalchemy import func, select, text

from defectoscope.database import Event, Hold, Image, Result, RetainedWhat, RetentionRule
from defectoscope.errors.api import InvalidRequest
from defectoscope.errors.jobs import ImageNotFound, JobNotFound
from defectoscope.errors.retention import HoldNotFound, RetentionRuleNotFound
from defectoscope.objects import apply_rules, count_given_up
from defectoscope.objects.retention import add_hold, add_rule, list_holds, list_rules, remove_hold, remove_rule
from tests.integration.inspection.scene import DEFECT, Scene, add_model_version, succeeded

MASKS, ORIGINALS = RetainedWhat.MASKS, RetainedWhat.ORIGINALS


@pytest.fixture
def scene(database, queue):
    return Scene(database=database, queue=queue, model_version_id=add_model_version(database))


@pytest.fixture
def old_job(scene):
    """A job of a hundred days ago: a clean image and a defective one."""
    job_id = scene.submit(images=2, chunk_size=2)
    chunk = scene.claim_next()
    clean, defective = chunk.items
    scene.complete(chunk, [succeeded(clean, defects=()), succeeded(defective, defects=(DEFECT,))])
    age(scene)
    return job_id


def age(scene):
    for table in ("jobs", "images", "results"):
        scene.execute(f"UPDATE {table} SET created_at = created_at - interval '100 days'")  # noqa: S608


def add(scene, what=MASKS, **rule):
    with scene.database.transaction() as session:
        options = {"older_than_days": 90, "keep_defective": True, "actor": "test", **rule}
        return add_rule(session, what=what, **options).id


def given_up(scene, table):
    with scene.database.transaction() as session:
        return session.scalars(select(table.id).where(table.deleted_at.is_not(None)).order_by(table.id)).all()


@pytest.mark.parametrize("what", [MASKS, ORIGINALS])
def test_what_is_clean_and_old_is_given_up_and_what_is_defective_is_kept(scene, old_job, what):
    rule_id = add(scene, what)

    would = count_given_up(scene.database)
    did = apply_rules(scene.database)
    again = apply_rules(scene.database)

    assert would == did == {rule_id: 1}
    assert again == {rule_id: 0}
    assert given_up(scene, Result) == ([1] if what is MASKS else [])
    assert given_up(scene, Image) == ([1] if what is ORIGINALS else [])


def test_a_rule_may_spare_nothing(scene, old_job):
    for what in (MASKS, ORIGINALS):
        add(scene, what, keep_defective=False)

    apply_rules(scene.database)

    assert (given_up(scene, Result), given_up(scene, Image)) == ([1, 2], [1, 2])


#: What spares the results and images of the old job, or some; which results, which images are still given up.
SPARED = {
    "a-hold-on-the-job": ("INSERT INTO holds (job_id, reason, actor) VALUES (1, 'r', 'a')", [], []),
    "a-hold-on-an-image": ("INSERT INTO holds (image_id, reason, actor) VALUES (1, 'r', 'a')", [2], [2]),
    "a-label-of-an-image": (
        "INSERT INTO labels (image_id, key, sha256, defect_px, source) VALUES (1, 'k', 's', 1, 't')",
        [1, 2],
        [2],
    ),
    "a-label-made-from-a-result": (
        "INSERT INTO labels (image_id, key, sha256, defect_px, source, parent_result_id) SELECT 1, 'k', 's', 1, 't', 1",
        [2],
        [2],
    ),
    "the-age": ("UPDATE results SET created_at = now(); UPDATE images SET created_at = now()", [], []),
    "a-job-that-used-it-of-late": ("UPDATE jobs SET created_at = now()", [], []),
    "a-job-that-has-not-ended": ("UPDATE jobs SET state = 'running'", [], []),
}


@pytest.mark.parametrize(("statement", "results", "images"), SPARED.values(), ids=SPARED.keys())
def test_what_something_refers_to_is_spared(scene, old_job, statement, results, images):
    for part in statement.split(";"):
        scene.execute(part)
    for what in (MASKS, ORIGINALS):
        add(scene, what, keep_defective=False)

    apply_rules(scene.database)

    assert (given_up(scene, Result), given_up(scene, Image)) == (results, images)


def test_images_of_a_dataset_are_spared(scene, old_job):
    scene.execute("INSERT INTO labels (image_id, key, sha256, defect_px, source) VALUES (1, 'k', 's', 1, 't')")
    scene.execute(
        "INSERT INTO dataset_revisions (name, number, sha256, manifest_key, train_count, val_count)"
        " VALUES ('d', 1, 's', 'k', 1, 1)"
    )
    scene.execute(
        "INSERT INTO dataset_items (revision_id, image_id, label_id, name, split) VALUES (1, 2, 1, 'a', 'val')"
    )
    add(scene, ORIGINALS, keep_defective=False)

    apply_rules(scene.database)

    # The other one is labelled.
    assert given_up(scene, Image) == []


def test_a_rule_for_one_job_leaves_what_other_jobs_used(scene, old_job):
    # The first image again, in a second job that is as old.
    second = scene.submit(images=1, chunk_size=2)
    scene.finish(*scene.owed(second))
    scene.execute("UPDATE jobs SET created_at = now() - interval '100 days'")
    for what in (MASKS, ORIGINALS):
        add(scene, what, keep_defective=False, job_id=old_job)

    apply_rules(scene.database)

    assert (given_up(scene, Result), given_up(scene, Image)) == ([2], [2])


def test_what_was_given_up_and_is_inspected_again_is_whole_again(scene, old_job):
    for what in (MASKS, ORIGINALS):
        add(scene, what, keep_defective=False)
    apply_rules(scene.database)
    second = scene.submit(images=2, chunk_size=2)

    scene.finish(*scene.owed(second))

    assert (given_up(scene, Result), given_up(scene, Image)) == ([], [])
    with scene.database.transaction() as session:
        # No defect is written twice, and none is lost.
        assert session.scalar(text("SELECT count(*) FROM defects")) == 1
        assert session.scalar(select(func.count()).select_from(Result)) == 2


def test_rules_and_holds_are_listed_removed_and_told_of(scene, old_job):
    rule_id = add(scene)
    with scene.database.transaction() as session:
        hold_id = add_hold(session, reason="claim 7", actor="eva", image_id=1).id
    with scene.database.transaction() as session:
        listed = ([rule.id for rule in list_rules(session)], [hold.reason for hold in list_holds(session)])
        remove_rule(session, rule_id, actor="eva")
        remove_hold(session, hold_id, actor="eva")

    with scene.database.transaction() as session:
        left = (session.scalars(select(RetentionRule)).all(), session.scalars(select(Hold)).all())
        kinds = session.scalars(select(Event.kind).where(Event.kind.startswith("retention.")).order_by(Event.id)).all()
    assert listed == ([rule_id], ["claim 7"])
    assert left == ([], [])
    assert kinds == [
        "retention.rule_added",
        "retention.hold_added",
        "retention.rule_removed",
        "retention.hold_removed",
    ]


#: What is asked, and what it is refused as.
REFUSED = {
    "a-rule-for-an-unknown-job": (
        add_rule,
        {"what": MASKS, "older_than_days": 1, "keep_defective": True, "job_id": 9},
        JobNotFound,
    ),
    "a-rule-of-no-day": (add_rule, {"what": MASKS, "older_than_days": 0, "keep_defective": True}, InvalidRequest),
    "a-hold-on-an-unknown-image": (add_hold, {"reason": "r", "image_id": 9}, ImageNotFound),
    "a-hold-on-nothing": (add_hold, {"reason": "r"}, InvalidRequest),
    "a-hold-on-both": (add_hold, {"reason": "r", "image_id": 1, "job_id": 1}, InvalidRequest),
    "a-hold-without-a-reason": (add_hold, {"reason": " ", "image_id": 1}, InvalidRequest),
    "an-unknown-rule-removed": (remove_rule, {"rule_id": 9}, RetentionRuleNotFound),
    "an-unknown-hold-removed": (remove_hold, {"hold_id": 9}, HoldNotFound),
}


@pytest.mark.parametrize(("ask", "options", "error"), REFUSED.values(), ids=REFUSED.keys())
def test_what_makes_no_sense_is_refused(database, ask, options, error):
    with pytest.raises(error), database.transaction() as session:
        ask(session, actor="test", **options)
