from __future__ import annotations

import subprocess
import sys

import psycopg
import pytest
from alembic import command
from sqlalchemy import create_engine, inspect, make_url, text

from defectoscope.database import Base
from defectoscope.database.migrate import migration_config, upgrade
from defectoscope.errors.installation import DatabaseUnavailable

#: What PostgreSQL itself says of a schema, in text that can be compared.
CATALOGUE = {
    "columns": """
        SELECT table_name, column_name, data_type, character_maximum_length, is_nullable, column_default, is_identity
        FROM information_schema.columns WHERE table_schema = 'public' ORDER BY 1, 2""",
    "constraints": """
        SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid)
        FROM pg_constraint WHERE connamespace = 'public'::regnamespace ORDER BY 1, 2""",
    "indexes": "SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1, 2",
    "comments": """
        SELECT objoid::regclass::text, objsubid, description FROM pg_description
        WHERE classoid = 'pg_class'::regclass AND objoid IN (
            SELECT oid FROM pg_class WHERE relnamespace = 'public'::regnamespace
        ) ORDER BY 1, description""",
}


def _describe(url):
    engine = create_engine(url)
    with engine.connect() as connection:
        found = {
            name: [tuple(row) for row in connection.execute(text(query)) if "alembic_version" not in str(row[0])]
            for name, query in CATALOGUE.items()
        }
    engine.dispose()
    # The position of a column may differ; its comment may not.
    found["comments"] = sorted((table, comment) for table, _, comment in found["comments"])
    return found


def _tables(url):
    engine = create_engine(url)
    tables = set(inspect(engine).get_table_names())
    engine.dispose()
    return tables


def test_the_migrations_go_up_agree_with_the_models_go_down_and_up_again(database_url):
    config = migration_config(database_url)

    upgrade(database_url)
    command.check(config)
    first = _describe(database_url)
    command.downgrade(config, "base")
    after_downgrade = _tables(database_url)
    upgrade(database_url)

    assert after_downgrade == {"alembic_version"}
    assert _describe(database_url) == first


def test_the_migrated_schema_is_that_of_the_models_check_constraints_included(database_url, migrated_url):
    engine = create_engine(database_url)
    Base.metadata.create_all(engine)
    engine.dispose()

    migrated, created = _describe(migrated_url), _describe(database_url)

    assert migrated == created
    assert len(migrated["columns"]) > 100
    assert [row for row in migrated["constraints"] if "CHECK" in row[2]]


def test_two_migrations_at_once_wait_for_each_other(database_url):
    program = "import sys; from defectoscope.database.migrate import upgrade; upgrade(sys.argv[1])"

    migrations = [subprocess.Popen([sys.executable, "-c", program, database_url]) for _ in range(2)]

    assert [migration.wait(timeout=60) for migration in migrations] == [0, 0]
    assert set(Base.metadata.tables) < _tables(database_url)


def test_a_migration_of_a_server_that_is_away_says_so():
    with pytest.raises(DatabaseUnavailable):
        upgrade("postgresql+psycopg://nobody@127.0.0.1:1/none")


#: Two images share a result, a third is clean, a fourth was lost and has a flawed label; the chunk holds them all.
ROWS_OF_0002 = """
    INSERT INTO model_versions (number, contract) VALUES (1, '{}');
    INSERT INTO images (sha256, key, size_bytes, width, height, format, source_mode)
        SELECT repeat(n::text, 64), 'k', 1, 4, 4, 'PNG', 'RGB' FROM generate_series(1, 2) AS n;
    INSERT INTO results (image_id, model_version_id, params_sha256, verdict, defect_px, defect_count, threshold,
            min_area_px, mask_key, mask_sha256, variant, provider, runtime_version, latency_ms)
        VALUES (1, 1, 'p', 'defective', 9, 3, 0.5, 1, 'k', 's', 'fp32', 'cpu', '1', 1),
               (2, 1, 'p', 'clean', 0, 0, 0.5, 1, 'k', 's', 'fp32', 'cpu', '1', 1);
    INSERT INTO labels (image_id, key, sha256, defect_px, source) VALUES (1, 'k', 's', 6, 'job:1');
    INSERT INTO qa_scores (result_id, label_id, tp, fp, fn, tn) VALUES (1, 1, 1, 1, 1, 13);
    INSERT INTO jobs (source, params, model_version_id, request_sha256, state)
        VALUES ('{}', '{}', 1, 's', 'running'), ('{}', '{}', 1, 's', 'pending');
    INSERT INTO chunks (job_id) VALUES (1);
    INSERT INTO job_items (job_id, chunk_id, name, state, source_uri, image_id, result_id, label_id, label_error_code)
        VALUES (1, 1, 'a', 'succeeded', 'u', 1, 1, 1, NULL), (1, 1, 'b', 'succeeded', 'u', 1, 1, 1, NULL),
               (1, 1, 'c', 'succeeded', 'u', 2, 2, NULL, NULL), (1, 1, 'd', 'failed', 'u', NULL, NULL, NULL, 'bad'),
               (1, 1, 'e', 'pending', 'u', NULL, NULL, NULL, NULL),
               (1, 1, 'f', 'cancelled', 'u', NULL, NULL, NULL, NULL);
"""


def test_a_database_of_the_release_before_gets_the_totals_of_its_jobs(database_url):
    config = migration_config(database_url)
    command.upgrade(config, "0002")
    _execute(database_url, ROWS_OF_0002)

    upgrade(database_url)

    jobs = _execute(
        database_url,
        """SELECT pending_images, succeeded_images, failed_images, cancelled_images, label_errors, defective_images,
            defects, scored_images, tp, fp, fn, tn, round(iou_defect_sum, 6), round(iou_background_sum, 6),
            round(dice_sum, 6), priority FROM jobs ORDER BY id""",
    )
    assert [tuple(map(float, job)) for job in jobs] == [
        (1, 3, 1, 1, 1, 2, 3, 2, 2, 2, 2, 26, 0.666667, 1.733333, 1.0, 1),
        (0,) * 15 + (1,),
    ]
    assert _execute(database_url, "SELECT verdict FROM job_items ORDER BY name") == [
        ("defective",), ("defective",), ("clean",), (None,), (None,), (None,)
    ]  # fmt: skip
    assert _execute(database_url, "SELECT image_count FROM chunks") == [(6,)]


def test_a_downgrade_keeps_the_rows_and_has_every_chunk_sent_again(database_url):
    config = migration_config(database_url)
    command.upgrade(config, "0002")
    _execute(database_url, ROWS_OF_0002)
    _execute(database_url, "UPDATE chunks SET dispatched_at = now()")
    upgrade(database_url)

    command.downgrade(config, "0002")

    assert _execute(database_url, "SELECT dispatched_at FROM chunks") == [(None,)]
    assert _execute(database_url, "SELECT count(*) FROM job_items") == [(6,)]


#: A job from before there were tokens; two of different tokens; one that was refused, so that its line names no job.
JOBS_OF_0009 = """
    INSERT INTO model_versions (number, contract) VALUES (1, '{}');
    INSERT INTO api_tokens (name, scope, sha256, created_by)
        VALUES ('a', 'operator', 's', 't'), ('b', 'admin', 's', 't');
    INSERT INTO jobs (source, params, model_version_id, request_sha256, idempotency_key)
        VALUES ('{}', '{}', 1, 's', 'old'), ('{}', '{}', 1, 's', 'k'), ('{}', '{}', 1, 's', NULL);
    INSERT INTO audit_entries (token_id, actor, action, subject, request_id, status)
        VALUES (1, 'a', 'POST /v1/jobs', 'jobs/2', 'r', 201), (2, 'b', 'POST /v1/jobs', 'jobs/2', 'r', 200),
               (2, 'b', 'POST /v1/jobs/{job_id}/cancel', 'jobs/1', 'r', 200), (2, 'b', 'POST /v1/jobs', NULL, 'r', 422),
               (2, 'b', 'POST /v1/jobs', 'jobs/3', 'r', 201);
"""


def test_jobs_get_the_token_that_the_audit_log_names_and_those_before_it_none(database_url):
    config = migration_config(database_url)
    command.upgrade(config, "0009")
    _execute(database_url, JOBS_OF_0009)

    upgrade(database_url)

    jobs = _execute(database_url, "SELECT id, token_id, idempotency_key FROM jobs ORDER BY id")
    assert jobs == [(1, None, "old"), (2, 1, "k"), (3, 2, None)]


def test_a_downgrade_leaves_a_key_of_two_tokens_to_the_first(database_url):
    config = migration_config(database_url)
    command.upgrade(config, "0009")
    _execute(database_url, JOBS_OF_0009)
    upgrade(database_url)
    _execute(database_url, "UPDATE jobs SET idempotency_key = 'k' WHERE id = 3")

    command.downgrade(config, "0009")

    assert _execute(database_url, "SELECT id, idempotency_key FROM jobs ORDER BY id") == [
        (1, "old"), (2, "k"), (3, None)
    ]  # fmt: skip


def _execute(url, statements):
    with psycopg.connect(make_url(url).set(drivername="postgresql").render_as_string(False)) as connection:
        cursor = connection.execute(statements)
        return cursor.fetchall() if cursor.description else None
