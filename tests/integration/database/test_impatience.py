from __future__ import annotations

import time

import pytest
import sqlalchemy
from sqlalchemy import text

from defectoscope.database import Database
from defectoscope.errors.installation import DatabaseUnavailable
from tests.faults.proxy import LOOPBACK, Disturbance, FaultProxy, Mode


@pytest.fixture
def proxy(connections):
    port = sqlalchemy.make_url(connections.database_url).port
    with FaultProxy(port) as proxy:
        yield proxy


@pytest.fixture
def database(connections, proxy):
    url = sqlalchemy.make_url(connections.database_url).set(host=LOOPBACK, port=proxy.port)
    database = Database(url.render_as_string(hide_password=False), statement_timeout_s=1)
    yield database
    database.close()


def test_a_connection_whose_server_vanished_without_a_word_is_replaced_before_a_transaction(database, proxy):
    database.ping()
    proxy.disturb(Disturbance(mode=Mode.HALF_OPEN))
    began_at = time.monotonic()

    database.ping()

    assert 5 < time.monotonic() - began_at < 15


def test_a_server_that_falls_silent_within_a_transaction_is_given_up(database, proxy):
    def ask_twice():
        with database.transaction() as session:
            session.execute(text("SELECT 1"))
            proxy.disturb(Disturbance(mode=Mode.HALF_OPEN))
            session.execute(text("SELECT 1"))

    with pytest.raises(DatabaseUnavailable):
        ask_twice()

    database.ping()


def test_a_statement_that_runs_too_long_is_still_ended_by_the_server(database):
    def sleep():
        with database.transaction() as session:
            session.execute(text("SELECT pg_sleep(3)"))

    with pytest.raises(DatabaseUnavailable, match="statement timeout"):
        sleep()
