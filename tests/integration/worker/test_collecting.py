"""Collecting beside the work: what a job left behind stays, and a worker does not point at what is being deleted."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import text

from defectoscope.database import ChunkState, JobState
from defectoscope.inspection.params import Overlays
from defectoscope.objects import collect, kind_of
from tests.images import draw_part, encode

NO_GRACE = timedelta(minutes=-5)


def parts(count, **part):
    return {f"{seed}.png": encode(draw_part(seed=seed, **part)[0], "PNG") for seed in range(count)}


def collect_everything(bench):
    bucket = bench.settings.storage.bucket
    return collect(database=bench.database, storage=bench.storage, bucket=bucket, grace=NO_GRACE, owner="test")


def execute(bench, statement, **values):
    with bench.database.transaction() as session:
        session.execute(text(statement), values)


def test_after_a_job_there_is_nothing_to_collect_and_every_object_is_of_a_kind(bench):
    labels = {"0.png": encode(draw_part(seed=0)[1] * 255, "PNG")}
    job_id = bench.submit(parts(3), labels=labels, overlays=Overlays.ALL)
    bench.work(job_id)
    written = [info.key for info in bench.storage.list() if not info.key.startswith(("in/", "truth/"))]

    done = collect_everything(bench)

    assert bench.job(job_id).state is JobState.SUCCEEDED
    assert {kind_of(key).name for key in written} == {"masks", "model files", "originals and uploads", "overlays"}
    assert (done.examined_objects, done.deleted_objects) == (len(written), 0)
    # Three originals and a label, three masks, three overlays, one model.
    assert len(written) == 11


def test_a_chunk_whose_mask_is_being_deleted_is_postponed_and_done_when_that_has_ended(bench):
    first = bench.submit(parts(1, with_defect=False))
    bench.work(first)
    ((mask_key, _),) = [(result.mask_key, image) for result, image in bench.results(first).values()]
    execute(bench, "INSERT INTO condemned_objects VALUES (:key, now(), NULL)", key=mask_key)
    # The same mask under other parameters.
    second = bench.submit(parts(1, with_defect=False), mm_per_px=0.5)
    (chunk_id,) = bench.owed(second)

    bench.inspector.process_next_chunk()
    chunk = bench.chunk(chunk_id)
    postponed = (chunk.state, chunk.attempts)
    execute(bench, "UPDATE condemned_objects SET deleted_at = now()")
    bench.work(second)

    assert postponed == (ChunkState.PENDING, 0)
    assert bench.job(second).state is JobState.SUCCEEDED
    assert bench.results(second)["0.png"][0].mask_key == mask_key


def test_a_worker_collects_when_it_is_time(bench):
    bench.storage.put(f"masks/ab/{'ab' * 32}.png", b"x", content_type="image/png")

    bench.inspector.collect_objects()
    bench.inspector.collect_objects()

    with bench.database.transaction() as session:
        walks = session.execute(
            text("SELECT examined_objects, deleted_objects FROM object_collections WHERE finished_at IS NOT NULL")
        ).all()
    # One walk, which found the model and the orphan, and spared it for its youth.
    assert walks == [(2, 0)]


def test_a_worker_forgets_old_lines_of_the_audit_log_once_a_day(bench):
    line = "INSERT INTO audit_entries (created_at, actor, action, request_id) VALUES (now() - :age, 'a', :action, 'r')"
    for action, age in {"old": timedelta(days=401), "young": timedelta(days=399)}.items():
        execute(bench, line, action=action, age=age)

    bench.inspector.collect_objects()
    execute(bench, line, action="old, of the day after", age=timedelta(days=401))
    bench.inspector.collect_objects()

    with bench.database.transaction() as session:
        left = session.scalars(text("SELECT action FROM audit_entries ORDER BY id")).all()
    assert left == ["young", "old, of the day after"]
