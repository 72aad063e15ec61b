"""Figures read from the real database, and what is left of them while it is away."""

from __future__ import annotations

import time

import pytest
import structlog
from sqlalchemy import text

from defectoscope.database import Database
from defectoscope.metrics import DatabaseFigures, Family

JOBS = Family(name="test_jobs", meaning="Jobs.", labels=("state",))
NOWHERE = "postgresql+psycopg://nobody:nothing@127.0.0.1:9/none"


def read_jobs(session):
    yield JOBS, ("all",), session.scalar(text("SELECT count(*) FROM jobs"))


def read_slowly(session):
    session.execute(text("SELECT pg_sleep(30)"))
    yield JOBS, ("all",), 0


def read_what_is_not_there(session):
    session.execute(text("SELECT figure FROM a_table_of_the_next_release"))
    yield JOBS, ("all",), 0


@pytest.fixture
def figures(migrated_url):
    """Make a collector on a database, by default the migrated one."""
    made = []

    def make(*, url=migrated_url, read=read_jobs, keep_s=0.0):
        database = Database(url, pool_size=1, statement_timeout_s=1)
        made.append(DatabaseFigures(database, families=[JOBS], read=read, keep_s=keep_s))
        return made[-1]

    yield make
    for collector in made:
        collector.close()


def values(collector):
    return {sample.name: sample.value for metric in collector.collect() for sample in metric.samples}


def test_what_the_database_says_is_shown_with_the_up_gauge(figures):
    assert values(figures()) == {"defectoscope_database_up": 1.0, "test_jobs": 0.0}


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"url": NOWHERE}, id="no server"),
        pytest.param({"read": read_slowly}, id="a slow answer"),
        pytest.param({"read": read_what_is_not_there}, id="another schema"),
    ],
)
def test_while_there_is_no_answer_the_figures_are_missing_and_the_gauge_says_so(figures, change):
    collector = figures(**change)
    began_s = time.monotonic()

    with structlog.testing.capture_logs() as logs:
        answers = [values(collector) for _ in range(2)]

    assert answers == [{"defectoscope_database_up": 0.0}] * 2
    assert time.monotonic() - began_s < 8
    # Once, however often it is scraped.
    assert [line["event"] for line in logs] == ["metrics.database_not_asked"]


def test_an_answer_is_kept_for_a_while(figures, database):
    collector = figures(keep_s=60)
    before = values(collector)

    with database.transaction() as session:
        session.execute(text("ALTER TABLE jobs RENAME TO jobs_elsewhere"))
    try:
        after = values(collector)
    finally:
        with database.transaction() as session:
            session.execute(text("ALTER TABLE jobs_elsewhere RENAME TO jobs"))

    assert before == after == {"defectoscope_database_up": 1.0, "test_jobs": 0.0}


def test_the_families_are_known_before_the_database_is_asked(figures):
    described = figures(url=NOWHERE).describe()

    assert [metric.name for metric in described] == ["defectoscope_database_up", "test_jobs"]
    assert [metric.samples for metric in described] == [[], []]
