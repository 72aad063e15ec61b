"""The audit log is kept for a time and then shortened, oldest lines first; nothing younger can be deleted at all."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import func, insert, select, text
from sqlalchemy.exc import DBAPIError

from defectoscope.access.forgetting import Forgotten, forget_old
from defectoscope.access.store import create_token
from defectoscope.database import AccessScope, ApiToken, AuditEntry, Job
from tests.integration.inspection.scene import Scene, add_model_version


@pytest.fixture
def write_lines(database):
    """Write lines of the audit log as many days ago as given, in this order."""

    def write(*days_ago, token_id=None):
        with database.transaction() as session:
            for days in days_ago:
                moment = func.now() - timedelta(days=days)
                line = {"actor": "ann", "action": f"{days} days", "request_id": "r", "status": 200}
                session.execute(insert(AuditEntry).values(created_at=moment, token_id=token_id, **line))

    return write


@pytest.fixture
def lines(database):
    """What the log still has."""

    def read():
        with database.transaction() as session:
            return session.scalars(select(AuditEntry.action).order_by(AuditEntry.id)).all()

    return read


@pytest.fixture
def make_ended_token(database):
    """Make a token that was revoked, or expired, so many days ago, and return its id."""

    def make(*, revoked=None, expired=None):
        with database.transaction() as session:
            row = create_token(session, name="line-3", scope=AccessScope.OPERATOR, created_by="ann").row
            row.revoked_at = None if revoked is None else func.now() - timedelta(days=revoked)
            row.expires_at = None if expired is None else func.now() - timedelta(days=expired)
            session.flush()
            return row.id

    return make


def tokens(database):
    with database.transaction() as session:
        return session.scalars(select(ApiToken.id).order_by(ApiToken.id)).all()


def test_lines_go_when_they_are_too_old_and_not_before(database, write_lines, lines):
    write_lines(402, 401, 400.01, 399.99, 31, 0)

    done = forget_old(database, days=400)

    assert done == Forgotten(entries=3, tokens=0)
    assert lines() == ["399.99 days", "31 days", "0 days"]
    assert forget_old(database, days=400) == Forgotten(entries=0, tokens=0)


def test_many_lines_go_in_steps_and_what_the_time_did_not_suffice_for_goes_later(database, write_lines, lines):
    with database.transaction() as session:
        session.execute(
            text("""
                INSERT INTO audit_entries (created_at, actor, action, request_id, status)
                SELECT now() - interval '500 days', 'ann', 'old', 'r', 200 FROM generate_series(1, 2500)
            """)
        )
    write_lines(1)

    first = forget_old(database, days=400, stop_after_s=1e-9)
    second = forget_old(database, days=400)

    assert first.entries in {0, 1000}
    assert first.entries + second.entries == 2500
    assert lines() == ["1 days"]


@pytest.mark.parametrize("days_ago", [29, 0])
def test_what_is_younger_than_a_month_stays_whoever_deletes_it(database, write_lines, lines, days_ago):
    write_lines(days_ago)

    with pytest.raises(DBAPIError, match="only ever appended to"):
        forget_old(database, days=0)

    assert lines() == [f"{days_ago} days"]


def test_old_lines_too_stay_when_nobody_says_that_they_are_to_be_forgotten(database, write_lines, lines):
    write_lines(500)

    with pytest.raises(DBAPIError, match="only ever appended to"), database.transaction() as session:
        session.execute(text("DELETE FROM audit_entries"))
    change = "SET LOCAL defectoscope.forget_audit_entries = 'on'; UPDATE audit_entries SET actor = 'mallory'"
    with pytest.raises(DBAPIError, match="only ever appended to"), database.transaction() as session:
        session.execute(text(change))

    assert lines() == ["500 days"]


def test_a_token_goes_when_it_ended_as_long_ago_and_nothing_names_it(database, make_ended_token):
    make_ended_token(revoked=401)
    make_ended_token(expired=401)
    # Expired long ago and revoked for order's sake: it ended when it expired.
    make_ended_token(revoked=1, expired=401)
    kept = [
        make_ended_token(revoked=399),
        make_ended_token(expired=399),
        make_ended_token(),
        make_ended_token(expired=-9),
    ]

    done = forget_old(database, days=400)

    assert done == Forgotten(entries=0, tokens=3)
    assert tokens(database) == kept


def test_a_token_stays_as_long_as_a_line_or_a_job_names_it(database, queue, write_lines, make_ended_token):
    of_a_line, of_a_job, of_an_old_line = (make_ended_token(revoked=500) for _ in range(3))
    write_lines(450, token_id=of_an_old_line)
    write_lines(399, token_id=of_a_line)
    scene = Scene(database=database, queue=queue, model_version_id=add_model_version(database))
    job_id = scene.submit(images=1, token_id=of_a_job)

    done = forget_old(database, days=400)

    assert done == Forgotten(entries=1, tokens=1)
    assert tokens(database) == [of_a_line, of_a_job]
    with database.transaction() as session:
        assert session.get_one(Job, job_id).token_id == of_a_job
