from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text

from defectoscope.database import ImportState, ModelOrigin, Severity
from defectoscope.errors.models import ModelImportNotFound, ModelNotOnnx
from defectoscope.queue import messages
from defectoscope.registry import (
    claim_import,
    complete_import,
    fail_import,
    reconcile_imports,
    release_import,
    renew_import,
    request_import,
)
from defectoscope.registry.imports import list_imports, view_import

SHA256 = "ab" * 32


@pytest.fixture
def ask(database, queue):
    def ask():
        with database.transaction() as session:
            return request_import(
                session,
                queue,
                key=f"objects/sha256/ab/{SHA256}",
                sha256=SHA256,
                file_name="plain.onnx",
                options={"threshold": 0.4},
                actor="ann",
            )

    return ask


@pytest.fixture
def import_id(ask):
    return ask()


def claim(database, import_id):
    return claim_import(database=database, import_id=import_id, lease_s=60)


def view(database, import_id):
    with database.transaction() as session:
        return view_import(session, import_id)


def expire(database):
    with database.transaction() as session:
        session.execute(text("UPDATE model_imports SET lease_expires_at = now() - interval '1 second'"))


def age(database):
    with database.transaction() as session:
        session.execute(text("UPDATE model_imports SET dispatched_at = now() - interval '1 hour'"))


def reconcile(database, queue, *, max_attempts=3):
    queue.messages.clear()
    reconcile_imports(database=database, queue=queue, resend_after_s=60, max_attempts=max_attempts)
    return queue.messages


def test_an_import_is_asked_for_after_the_commit_and_claimed_once(database, queue, import_id):
    with ThreadPoolExecutor(4) as pool:
        claims = list(pool.map(lambda _: claim(database, import_id), range(4)))

    [claimed] = [found for found in claims if found is not None]
    assert queue.messages == [messages.import_model(import_id)]
    assert (claimed.token, claimed.attempt, claimed.options, claimed.actor) == (1, 1, {"threshold": 0.4}, "ann")
    assert view(database, import_id).row.state is ImportState.RUNNING


def test_publishing_an_import_binds_it_to_one_version_and_writes_the_ledger(registry, database, import_id):
    claimed = claim(database, import_id)

    numbers = [registry.publish(import_id=import_id) for _ in range(2)]
    completed = complete_import(database=database, claimed=claimed)

    found = view(database, import_id)
    assert (numbers, completed) == ([1, 1], True)
    assert (found.row.state, found.model_version) == (ImportState.SUCCEEDED, 1)
    assert found.row.finished_at is not None
    assert registry.version(1).origin is ModelOrigin.IMPORT
    assert registry.ledger() == [("imported", 1)]
    assert registry.events()[-1].details["actor"] == "ann"
    assert claim(database, import_id) is None


def test_a_refused_file_is_a_failed_import_and_an_event(registry, database, import_id):
    claimed = claim(database, import_id)

    failed = fail_import(database=database, claimed=claimed, error=ModelNotOnnx("plain.onnx is a text file."))

    row = view(database, import_id).row
    assert failed
    assert (row.state, row.error_code, row.error_message) == (
        ImportState.FAILED,
        "model_not_onnx",
        "plain.onnx is a text file.",
    )
    [event] = registry.events()
    assert (event.kind, event.severity, event.subject) == (
        "model.import_failed",
        Severity.ERROR,
        f"model_import:{import_id}",
    )


def test_who_lost_an_import_writes_nothing_any_more(database, queue, import_id):
    lost = claim(database, import_id)
    expire(database)
    reconcile(database, queue)
    successor = claim(database, import_id)

    answers = [
        renew_import(database=database, claimed=lost, lease_s=60),
        complete_import(database=database, claimed=lost),
        fail_import(database=database, claimed=lost, error=ModelNotOnnx()),
        release_import(database=database, claimed=lost),
    ]

    assert answers == [False] * 4
    assert (successor.token, successor.attempt) == (2, 2)
    assert view(database, import_id).row.state is ImportState.RUNNING


def test_an_import_whose_trainers_die_is_given_up_by_name(registry, database, queue, import_id):
    sent = []
    for _ in range(3):
        claim(database, import_id)
        expire(database)
        sent.append(list(reconcile(database, queue)))

    row = view(database, import_id).row
    assert sent == [[messages.import_model(import_id)], [messages.import_model(import_id)], []]
    assert (row.state, row.error_code, row.attempts) == (ImportState.FAILED, "import_abandoned", 3)
    assert [event.kind for event in registry.events()] == ["model.import_failed"]


def test_an_import_that_is_given_back_is_sent_again_and_the_attempt_is_not_counted(database, queue, import_id):
    claimed = claim(database, import_id)

    released = release_import(database=database, claimed=claimed)

    assert released
    assert list(reconcile(database, queue)) == []
    age(database)
    assert list(reconcile(database, queue)) == [messages.import_model(import_id)]
    assert claim(database, import_id).attempt == 1


def test_a_lost_message_is_sent_again_and_a_held_import_is_left_alone(database, queue, ask):
    waiting, held = ask(), ask()
    claimed = claim(database, held)
    age(database)

    sent = list(reconcile(database, queue))
    again = list(reconcile(database, queue))

    assert (sent, again) == ([messages.import_model(waiting)], [])
    assert renew_import(database=database, claimed=claimed, lease_s=60)


def test_imports_are_listed_newest_first(database, ask):
    ids = [ask() for _ in range(3)]

    with database.transaction() as session:
        first = list_imports(session, limit=2)
        rest = list_imports(session, before=first[-1].row.id)

    assert [found.row.id for found in (*first, *rest)] == ids[::-1]


def test_an_unknown_import_is_not_found(database):
    with pytest.raises(ModelImportNotFound):
        view(database, 9)
