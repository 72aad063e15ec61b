"""The checker sees what it is there for: each row that is wrong, missing or there twice."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from tests.faults.checker import find_flaws, judge, read_outcomes
from tests.images import draw_part, encode
from tests.integration.worker.bench import Bench
from worker.inspector import Inspector

PARTS = {f"part-{seed}.png": encode(draw_part(height=256, width=256, seed=seed)[0], "PNG") for seed in range(6)}


@pytest.fixture
def done(settings, database, storage, queue, tmp_path):
    """A job that ended as it should, with a label; its key is set as a client would."""
    inspector = Inspector(settings)
    bench = Bench(settings=settings, database=database, queue=queue, storage=storage, inspector=inspector)
    bench.put_model_in_service(tmp_path)
    _, class_mask = draw_part(height=256, width=256, seed=1)
    job_id = bench.submit(PARTS | {"words.png": b"words"}, labels={"part-1.png": encode(class_mask, "PNG")})
    bench.work(job_id)
    with database.transaction() as session:
        session.execute(text("UPDATE jobs SET idempotency_key = 'a'"))
    yield bench
    inspector.close()


def _judge(bench, *, expected=None):
    outcomes = read_outcomes(bench.database)
    return judge(
        bench.database,
        bench.storage,
        owed=[("a", name) for name in (*PARTS, "words.png")],
        expected=outcomes if expected is None else expected,
    )


def test_a_run_that_went_well_is_found_in_order(done):
    verdict = _judge(done)

    assert verdict.is_kept
    assert (verdict.accepted, verdict.orphans) == (7, 0)


@pytest.mark.parametrize(
    ("damage", "flaw"),
    [
        pytest.param("UPDATE jobs SET state = 'running'", "jobs that did not end", id="job"),
        pytest.param("UPDATE chunks SET state = 'running' WHERE id = 1", "chunks that did not end", id="chunk"),
        pytest.param("UPDATE chunks SET lease_owner = 'a:1' WHERE id = 1", "chunks still held", id="lease"),
        pytest.param("UPDATE jobs SET succeeded_images = 5", "jobs whose totals do not add up", id="totals"),
        pytest.param("UPDATE jobs SET tp = tp + 1", "jobs whose totals do not add up", id="scores"),
        pytest.param("UPDATE jobs SET defects = 99", "jobs whose defects do not add up", id="defects"),
        pytest.param("DELETE FROM qa_scores", "labels without a score", id="label"),
        pytest.param(
            "DELETE FROM defects WHERE id = (SELECT min(id) FROM defects)",
            "results without the defects they count",
            id="defect",
        ),
        pytest.param(
            "UPDATE job_items SET result_id = NULL WHERE name = 'part-0.png'",
            "ends without a result or an error",
            id="result",
        ),
        pytest.param(
            "UPDATE job_items SET result_id = (SELECT max(id) FROM results) WHERE name = 'part-0.png'",
            "results of another image than the item's",
            id="image",
        ),
        pytest.param(
            "INSERT INTO model_versions (number, contract, origin) SELECT 2, contract, origin FROM model_versions;"
            "UPDATE jobs SET model_version_id = (SELECT max(id) FROM model_versions)",
            "results of another model than the job's",
            id="model",
        ),
        pytest.param("UPDATE jobs SET state = 'succeeded'", "jobs that ended otherwise than their images", id="end"),
    ],
)
def test_each_flaw_is_named(done, damage, flaw):
    with done.database.transaction() as session:
        for statement in damage.split(";"):
            session.execute(text(statement))

    assert flaw in find_flaws(done.database)
    assert not _judge(done).is_kept


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param("UPDATE job_items SET state = 'pending' WHERE name = 'part-2.png'", id="no-end"),
        pytest.param("DELETE FROM job_items WHERE name = 'part-2.png'", id="no-row"),
    ],
)
def test_an_image_without_an_end_is_lost(done, damage):
    expected = read_outcomes(done.database)
    with done.database.transaction() as session:
        session.execute(text(damage))

    verdict = _judge(done, expected=expected)

    assert verdict.lost == (("a", "part-2.png"),)


def test_an_image_whose_mask_is_not_there_is_lost(done):
    result, _ = done.results(1)["part-3.png"]
    done.storage.delete([result.mask_key])

    assert _judge(done).lost == (("a", "part-3.png"),)


def test_a_mask_that_no_result_refers_to_is_an_orphan(done):
    done.storage.put("masks/00/0000.png", b"mask", content_type="image/png")

    assert _judge(done).orphans == 1


def test_an_image_that_ended_otherwise_is_told_apart(done):
    expected = read_outcomes(done.database)
    with done.database.transaction() as session:
        session.execute(text("UPDATE defects SET area_px = area_px + 1 WHERE id = (SELECT min(id) FROM defects)"))

    verdict = _judge(done, expected=expected)

    assert len(verdict.different) == 1
    assert verdict.lost == ()


@pytest.fixture
def drop_guard(database):
    """Take a unique key away from a table, and bring it back over an empty one."""
    dropped = []

    def drop(table, *columns):
        dropped.append((table, f"uq_{table}_{'_'.join(columns)}", ", ".join(columns)))
        with database.transaction() as session:
            session.execute(text(f"ALTER TABLE {table} DROP CONSTRAINT {dropped[-1][1]}"))

    yield drop
    for table, name, columns in dropped:
        with database.transaction() as session:
            session.execute(text(f"TRUNCATE {table} CASCADE"))
            session.execute(text(f"ALTER TABLE {table} ADD CONSTRAINT {name} UNIQUE ({columns})"))


@pytest.mark.parametrize(
    ("guard", "damage"),
    [
        pytest.param(
            ("job_items", "job_id", "name"),
            "INSERT INTO job_items (job_id, chunk_id, name, state, source_uri, image_id, result_id, verdict)"
            " SELECT job_id, chunk_id, name, state, source_uri, image_id, result_id, verdict FROM job_items"
            " WHERE name = 'part-2.png'",
            id="image",
        ),
        pytest.param(
            ("defects", "result_id", "number"),
            "UPDATE defects SET number = 1, result_id = (SELECT min(result_id) FROM defects)",
            id="defect",
        ),
    ],
)
def test_what_is_there_twice_is_doubled(done, drop_guard, guard, damage):
    drop_guard(*guard)
    with done.database.transaction() as session:
        session.execute(text(damage))

    assert _judge(done).doubled >= 1
