"""A process that cannot use its GPU any more gives its chunks back and ends, so that it is started anew."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from defectoscope.database import ChunkState
from tests.images import draw_part, encode

GOOD = encode(draw_part(height=256, width=256, seed=1)[0], "PNG")

#: Claims the chunk that is owed and then runs into what the argument says: a GPU that fails, or one that hangs.
_WORKER = """
import sys
import time
from concurrent.futures import Future
from defectoscope import connect
from defectoscope.errors.engine import DeviceLost
from defectoscope.inspection.chunks import claim_next_chunk
from defectoscope.settings import load_settings
from worker.departure import Departure, LaneWatch
from worker.lane import Lane

class Broken:
    batch_size = 1
    def fit(self, waiting):
        return 1
    def run(self, images):
        if sys.argv[1] == "hangs":
            time.sleep(60)
        raise DeviceLost("CUDA failure 719")

database = connect.open_database(load_settings())
stopping = []
departure = Departure(database=database, before=lambda: stopping.append(True))
lane = Lane(on_lost=lambda exc: departure.begin(exc.message))
watch = LaneWatch(lane=lane, departure=departure, stuck_after_s=0.2)
watch.start()
chunk = claim_next_chunk(database=database, owner="broken", lease_s=600, max_attempts=3)
with departure.holding(chunk):
    lane.submit(Broken(), b"")
    # A chunk's own thread that cannot be ended either.
    time.sleep(60)
"""


@pytest.mark.parametrize("way", ["fails", "hangs"])
def test_a_process_whose_gpu_is_lost_gives_its_chunk_back_uncounted_and_ends(bench, way):
    job_id = bench.submit({"a.png": GOOD})
    (chunk_id,) = bench.owed(job_id)
    environment = {**os.environ, "DEFECTOSCOPE_DATABASE__URL": bench.settings.database.url.get_secret_value()}

    done = subprocess.run(
        [sys.executable, "-c", _WORKER, way], env=environment, capture_output=True, text=True, check=False, timeout=60
    )

    chunk = bench.chunk(chunk_id)
    assert done.returncode == 70, done.stderr
    assert "worker.departing" in done.stdout
    assert (chunk.state, chunk.attempts, chunk.lease_owner) == (ChunkState.PENDING, 0, None)
    assert chunk.next_run_at is not None
    bench.wake_up()
    bench.work(job_id)
    assert len(bench.results(job_id)) == 1
