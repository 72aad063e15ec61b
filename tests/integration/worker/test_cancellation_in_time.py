"""A cancellation ends the work of a real worker process within two seconds, between two calls of the model."""

from __future__ import annotations

from defectoscope.connect import open_queue
from defectoscope.database import ItemState, JobState
from defectoscope.inspection.jobs import cancel_job
from defectoscope.queue import ring_for_chunks
from tests.images import draw_part, encode
from tests.integration.worker.processes import wait_until

#: Of one call of the model, on which nobody can be held to anything.
CALL_S = 0.5


def test_a_job_in_work_is_cancelled_within_two_seconds_however_much_waits_for_the_model(bench, processes, settings):
    pictures = {f"{seed}.png": encode(draw_part(height=64, width=64, seed=seed)[0], "PNG") for seed in range(48)}
    job_id = bench.submit(pictures, chunk_size=16)
    processes.start(call_s=CALL_S)
    ring_for_chunks(open_queue(settings, name="test"), chunks=3)
    # Three chunks of 16 images in work, two images a call: twelve seconds of work wait before the model.
    wait_until(lambda: sum(bench.chunk(chunk_id).attempts for chunk_id in bench.owed(job_id)) == 3)
    wait_until(lambda: list(bench.storage.list("masks/")))

    cancel_job(database=bench.database, job_id=job_id)
    seconds = wait_until(lambda: bench.job(job_id).state is JobState.CANCELLED)

    states = [view.item.state for view in bench.items(job_id).values()]
    assert seconds < 2 + CALL_S
    assert states.count(ItemState.CANCELLED) > 24
    assert not [state for state in states if state is ItemState.PENDING]
