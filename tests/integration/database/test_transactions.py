from __future__ import annotations

import socket
import threading
import time

import pytest
from sqlalchemy import func, insert, select, text

from defectoscope.database import Database, ModelVersion, after_commit
from defectoscope.errors import CallerError
from defectoscope.errors.installation import DatabaseUnavailable


def _add_version(session):
    session.execute(insert(ModelVersion).values(number=1, contract={}))


def _fail_after(database, act):
    with database.transaction() as session:
        act(session)
        raise CallerError


def _count(database):
    with database.transaction() as session:
        return session.scalar(select(func.count()).select_from(ModelVersion))


def test_leaving_commits(database):
    with database.transaction() as session:
        _add_version(session)

    assert _count(database) == 1


def test_an_exception_rolls_back_and_passes_unchanged(database):
    with pytest.raises(CallerError):
        _fail_after(database, _add_version)

    assert _count(database) == 0


def test_an_effect_runs_after_the_commit_and_sees_what_was_written(database):
    seen = []

    with database.transaction() as session:
        _add_version(session)
        after_commit(session, lambda: seen.append(_count(database)))
        before = list(seen)

    assert before == []
    assert seen == [1]


def test_effects_run_in_order_and_once(database):
    seen = []

    for turn in (1, 2):
        with database.transaction() as session:
            after_commit(session, lambda turn=turn: seen.append((turn, "first")))
            after_commit(session, lambda turn=turn: seen.append((turn, "second")))

    assert seen == [(1, "first"), (1, "second"), (2, "first"), (2, "second")]


def test_an_effect_is_forgotten_when_the_transaction_rolls_back(database):
    seen = []

    with pytest.raises(CallerError):
        _fail_after(database, lambda session: after_commit(session, lambda: seen.append("sent")))

    assert seen == []


def test_an_effect_is_forgotten_when_the_commit_itself_fails(database):
    seen = []

    def lose_the_connection_before_the_commit():
        with database.transaction() as session:
            _add_version(session)
            after_commit(session, lambda: seen.append("sent"))
            pid = session.scalar(text("SELECT pg_backend_pid()"))
            with database.transaction() as other:
                other.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})

    with pytest.raises(DatabaseUnavailable):
        lose_the_connection_before_the_commit()

    assert seen == []
    assert _count(database) == 0


def test_a_server_that_is_away_is_told_soon():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    away = Database(f"postgresql+psycopg://nobody@127.0.0.1:{port}/none")
    started = time.monotonic()

    with pytest.raises(DatabaseUnavailable, match="does not answer"):
        away.ping()

    assert time.monotonic() - started < 3


def test_a_server_that_accepts_and_never_answers_is_told_within_the_time_limit():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        away = Database(f"postgresql+psycopg://nobody@127.0.0.1:{listener.getsockname()[1]}/none")
        started = time.monotonic()

        with pytest.raises(DatabaseUnavailable):
            away.ping()

    assert time.monotonic() - started < 10


def test_a_connection_that_was_ended_while_it_waited_in_the_pool_is_replaced(database):
    with database.transaction() as session:
        pid = session.scalar(text("SELECT pg_backend_pid()"))
    killer = Database(database._engine.url.render_as_string(hide_password=False))
    with killer.transaction() as session:
        session.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
    killer.close()

    assert _count(database) == 0


def test_a_statement_that_runs_too_long_is_ended(migrated_url):
    database = Database(migrated_url, statement_timeout_s=1)

    with pytest.raises(DatabaseUnavailable, match="timeout"), database.transaction() as session:
        session.execute(text("SELECT pg_sleep(10)"))

    database.close()


def test_times_are_utc_whatever_the_server_thinks(database):
    with database.transaction() as session:
        zone = session.scalar(text("SHOW timezone"))
        now = session.scalar(select(func.now()))

    assert zone == "UTC"
    assert now.utcoffset().total_seconds() == 0


def test_transactions_of_several_threads_are_separate(database):
    seen = []

    def look():
        seen.append(_count(database))

    with database.transaction() as session:
        _add_version(session)
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()

    assert seen == [0]
    assert _count(database) == 1


def test_a_process_that_is_stopped_in_a_transaction_keeps_its_locks_for_a_minute_at_most(database):
    with database.transaction() as session:
        patience = session.scalar(text("SHOW idle_in_transaction_session_timeout"))

    assert patience == "1min"


def test_a_transaction_that_postgresql_gave_up_is_told_as_a_database_that_is_away(database):
    def outlast(session):
        session.execute(text("SET LOCAL idle_in_transaction_session_timeout = '100ms'"))
        time.sleep(0.5)
        session.execute(text("SELECT 1"))

    with pytest.raises(DatabaseUnavailable):
        _fail_after(database, outlast)
