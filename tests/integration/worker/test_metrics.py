"""What a worker counts, against what the database says became of the work."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from defectoscope.database import Verdict
from defectoscope.inspection.chunks import claim_next_chunk
from defectoscope.inspection.leases import Lease
from tests.images import draw_part, encode
from worker.metrics import CHUNK_OUTCOMES, IMAGE_OUTCOMES, REGISTRY, STAGES


def read():
    """What has been counted since the process began: images and chunks by outcome, lease losses, steps by stage."""

    def value(name, **labels):
        return REGISTRY.get_sample_value(name, labels) or 0

    counted = {("images", end): value("defectoscope_images_total", outcome=end) for end in IMAGE_OUTCOMES}
    counted |= {("chunks", end): value("defectoscope_chunks_total", outcome=end) for end in CHUNK_OUTCOMES}
    counted |= {("steps", stage): value("defectoscope_stage_seconds_count", stage=stage) for stage in STAGES}
    return counted | {("lease losses", ""): value("defectoscope_lease_losses_total")}


@pytest.fixture
def counted():
    """Return what was counted since the test began, zeros left out."""
    before = read()
    return lambda kind: {
        end: after - before[what, end]
        for (what, end), after in read().items()
        if what == kind and after != before[what, end]
    }


def picture(seed):
    return encode(draw_part(height=64, width=64, seed=seed)[0], "PNG")


def test_images_are_counted_as_they_ended_and_once_only(bench, counted):
    pictures = {f"{seed}.png": picture(seed) for seed in range(3)}
    first = bench.submit({**pictures, "broken.png": b"no image"})
    bench.work(first)
    again = bench.submit(pictures)
    bench.work(again)

    verdicts = [result.verdict for result, _ in bench.results(first).values()]
    assert len(verdicts) == 3
    expected = {
        "clean": verdicts.count(Verdict.CLEAN),
        "defective": verdicts.count(Verdict.DEFECTIVE),
        "failed": 1,
        "known": 3,
    }
    assert counted("images") == {end: count for end, count in expected.items() if count}
    assert counted("chunks") == {"completed": 2}
    # The broken file is fetched and goes no further; the known ones need no model.
    steps = counted("steps")
    assert steps.keys() == set(STAGES)
    assert (steps["fetch"], steps["commit"]) == (7, 2)
    assert counted("lease losses") == {}


def test_a_chunk_that_another_has_taken_counts_as_lost_and_none_of_its_images(bench, counted):
    bench.submit({"a.png": picture(1)})
    chunk = claim_next_chunk(database=bench.database, owner="slow", lease_s=60, max_attempts=3)
    with bench.database.transaction() as session:
        session.execute(text("UPDATE chunks SET lease_token = lease_token + 1"))

    # Straight to the end of the work, which the other has overtaken.
    bench.inspector._complete(chunk, [], Lease.HELD)

    assert counted("lease losses") == {"": 1}
    assert counted("chunks") == {"lost": 1}
    assert counted("images") == {}


def test_a_chunk_that_a_stopping_worker_gives_back_counts_as_released(bench, counted):
    bench.submit({"a.png": picture(1)})
    bench.inspector.request_stop()

    bench.inspector.process_next_chunk()

    assert counted("chunks") == {"released": 1}
    assert counted("images") == {}
