"""What is owed, from rows that are put straight into the tables."""

from __future__ import annotations

import pytest
from sqlalchemy import event, insert, text

from defectoscope.database import Chunk, ChunkState, Job, JobState, ModelVersion
from defectoscope.inspection.backlog import read_backlog


@pytest.fixture
def backlog(database):
    def read():
        with database.transaction() as session:
            return read_backlog(session)

    return read


@pytest.fixture
def add_job(database):
    """Add a job with chunks, each of a state and an age in hours; returns the job's id and those of the chunks."""
    with database.transaction() as session:
        version = ModelVersion(number=1, contract={})
        session.add(version)
        session.flush()
        version_id = version.id

    def add(*chunks, state=JobState.RUNNING, images=0, age_h=0.0):
        with database.transaction() as session:
            job = Job(
                state=state,
                source={},
                params={},
                model_version_id=version_id,
                request_sha256="0" * 64,
                pending_images=images,
            )
            session.add(job)
            session.flush()
            rows = [
                Chunk(job_id=job.id, state=chunk_state, attempts=int(chunk_state is not ChunkState.PENDING))
                for chunk_state, _ in chunks
            ]
            session.add_all(rows)
            session.flush()
            ages = [(job.__tablename__, job.id, age_h)]
            ages += [("chunks", row.id, hours) for row, (_, hours) in zip(rows, chunks, strict=True)]
            for table, row_id, hours in ages:
                set_age(session, table, row_id, hours)
            return job.id, [row.id for row in rows]

    return add


def set_age(session, table, row_id, hours):
    session.execute(
        text(f"UPDATE {table} SET created_at = now() - make_interval(secs => :age_s) WHERE id = :row_id"),  # noqa: S608 -- ours
        {"age_s": hours * 3600, "row_id": row_id},
    )


PENDING, RUNNING, DONE = ChunkState.PENDING, ChunkState.RUNNING, ChunkState.DONE


def test_an_empty_database_owes_nothing(backlog):
    found = backlog()

    assert (found.images, found.paused_images, found.oldest_owed_s) == (0, 0, 0.0)
    assert found.chunks == {PENDING: 0, RUNNING: 0}
    assert found.unfinished_jobs == {JobState.PENDING: 0, JobState.RUNNING: 0}
    assert set(found.ended_jobs.values()) == {0}


def test_what_waits_what_is_held_and_what_has_ended_are_told_apart(add_job, backlog):
    add_job((DONE, 0), state=JobState.SUCCEEDED)
    add_job((RUNNING, 0), (PENDING, 0), (PENDING, 0), images=6)
    add_job(state=JobState.PENDING)

    found = backlog()

    assert found.images == 6
    assert found.chunks == {PENDING: 2, RUNNING: 1}
    assert found.unfinished_jobs == {JobState.PENDING: 1, JobState.RUNNING: 1}
    assert found.ended_jobs[JobState.SUCCEEDED] == 1


def test_the_age_is_that_of_the_oldest_chunk_that_nobody_holds(database, add_job, backlog):
    add_job((DONE, 20), (RUNNING, 9), (PENDING, 2))
    _, (oldest,) = add_job((PENDING, 3))

    before = backlog().oldest_owed_s
    with database.transaction() as session:
        session.get_one(Chunk, oldest).state = DONE
    after = backlog().oldest_owed_s

    assert before == pytest.approx(3 * 3600, abs=60)
    assert after == pytest.approx(2 * 3600, abs=60)


def test_jobs_of_which_nothing_waits_do_not_hide_those_behind_them(database, add_job, backlog):
    add_job((DONE, 9), (RUNNING, 9))
    paused, _ = add_job((PENDING, 8))
    with database.transaction() as session:
        session.execute(text("UPDATE jobs SET paused_at = now() WHERE id = :job_id"), {"job_id": paused})
    add_job((RUNNING, 7), (PENDING, 1), (PENDING, 6))
    add_job((PENDING, 4))

    # Within a job the first one waits longest: chunks are made in the order of their ids.
    assert backlog().oldest_owed_s == pytest.approx(4 * 3600, abs=60)


def test_a_paused_job_waits_for_nobody(database, add_job, backlog):
    job_id, _ = add_job((PENDING, 5), images=4)
    with database.transaction() as session:
        session.execute(text("UPDATE jobs SET paused_at = now() WHERE id = :job_id"), {"job_id": job_id})

    found = backlog()

    assert (found.images, found.paused_images, found.oldest_owed_s) == (0, 4, 0.0)


def test_jobs_of_the_day_before_yesterday_are_not_counted(add_job, backlog):
    add_job(state=JobState.FAILED, age_h=25)
    add_job(state=JobState.FAILED, age_h=23)

    assert backlog().ended_jobs[JobState.FAILED] == 1


def test_no_query_reads_the_table_of_chunks_to_its_end(database, add_job):
    job_id, _ = add_job()
    with database.transaction() as session:
        # A plan depends on the size of a table: enough rows that an index is worth its while.
        session.execute(
            insert(Chunk),
            [
                {"job_id": job_id, "state": PENDING if number % 100 == 0 else DONE, "attempts": 1}
                for number in range(20_000)
            ],
        )
    with database.transaction() as session:
        session.execute(text("ANALYZE chunks"))
    asked = []

    with database.transaction() as session:
        connection = session.connection()
        event.listen(connection, "before_cursor_execute", lambda *given: asked.append((given[2], given[3])))
        read_backlog(session)
        plans = [
            "\n".join(line for (line,) in connection.exec_driver_sql(f"EXPLAIN {sql}", values))
            for sql, values in list(asked)
            if "FROM chunks" in sql
        ]

    assert len(plans) == 3
    assert [plan for plan in plans if "Seq Scan on chunks" in plan] == []
