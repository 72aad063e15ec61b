"""A worker has too little memory for one image. The kernel kills it, or its allocations fail; all others are done."""

from __future__ import annotations

import resource
import sys
import time

import numpy as np
import pytest

from defectoscope.database import ItemState, JobState
from defectoscope.embedded.server import Server
from defectoscope.embedded.supervisor import Supervisor
from defectoscope.queue import CeleryQueue, make_celery
from defectoscope.queue.messages import CONTROL_QUEUE, RECONCILE, Message
from tests.faults.servers import QUICK, child_of_guardian
from tests.faults.small_memory import memory_group
from tests.images import draw_part, encode
from tests.integration.worker.bench import Bench
from tests.integration.worker.processes import WorkerProcesses, wait_until
from tests.models import expect_mask
from worker.inspector import Inspector

PARTS = {f"part-{seed}.png": draw_part(height=256, width=256, seed=seed)[0] for seed in range(6)}
FILES = {name: encode(pixels, "PNG") for name, pixels in PARTS.items()}
# A job waits for workers that die one after the other.
pytestmark = pytest.mark.timeout(400)

#: 100 megapixels in 300 kB: 300 MB of colours, and more while it is inspected.
HUGE = encode(np.zeros((10_000, 10_000, 3), dtype=np.uint8), "PNG", compress_level=1)
#: What a worker may take beyond what it has when it is warm.
MORE_BYTES = 150 * 2**20
LEASE_S = 3
OVER_WITHIN_S = 200.0


@pytest.fixture
def settings(settings):
    inspection = settings.inspection.model_copy(update={"lease_s": LEASE_S, "chunk_size": 4})
    return settings.model_copy(update={"inspection": inspection})


@pytest.fixture
def bench(settings, database, storage, queue, tmp_path):
    inspector = Inspector(settings)
    bench = Bench(settings=settings, database=database, queue=queue, storage=storage, inspector=inspector)
    bench.put_model_in_service(tmp_path)
    yield bench
    inspector.close()


@pytest.fixture
def broker(settings):
    """The real queue, to ring as beat does."""
    url = settings.queue.url.get_secret_value()
    app = make_celery("test", broker_url=url, key_prefix=settings.queue.key_prefix)
    yield CeleryQueue(app)
    app.pool.force_close_all()
    app.close()


@pytest.fixture
def supervisor(tmp_path):
    with Supervisor(tmp_path / "logs", backoff=QUICK) as supervisor:
        yield supervisor


@pytest.fixture
def start_worker(settings, supervisor, tmp_path):
    """Start a worker as `defectoscope up` does, which is started again when it dies; wait until it is warm."""

    def start(wrap=lambda *argv: argv):
        command = ("celery", "--quiet", "-A", "worker.app", "worker", "-Q", "control,inspection")
        environment = {
            **WorkerProcesses(settings, tmp_path).environment(),
            "DEFECTOSCOPE_INSPECTION__LEASE_S": str(LEASE_S),
            "DEFECTOSCOPE_INSPECTION__BACKOFF_S": "0.2",
            "DEFECTOSCOPE_WORKER__CHAMPION_INTERVAL_S": "0.5",
            "PYTHONUNBUFFERED": "1",
            "PYTHONWARNINGS": "ignore:You're running the worker with superuser",
        }
        server = Server(
            name="worker",
            argv=wrap(sys.executable, "-m", *command, "--without-mingle", "--without-gossip"),
            env=environment,
            cwd=tmp_path,
        )
        supervisor.start(server)
        wait_until(lambda: "champion.warm" in _log(tmp_path))
        return child_of_guardian(supervisor, "worker")

    return start


def _log(tmp_path):
    return (tmp_path / "logs" / "worker.log").read_text()


def _see_end(bench, broker, job_id):
    """Have a job worked on, and see that every small image has its mask; return the item of the huge one."""
    _work(bench, broker, job_id)
    for name, (result, _) in bench.results(job_id).items():
        if name in PARTS:
            assert np.array_equal(bench.mask(result), expect_mask(PARTS[name]))
    items = {name: view.item for name, view in bench.items(job_id).items()}
    assert {items[name].state for name in PARTS} == {ItemState.SUCCEEDED}
    return items["huge.png"]


def _work(bench, broker, job_id):
    """Ring as beat does until a job has ended."""
    deadline = time.monotonic() + OVER_WITHIN_S
    while not bench.job(job_id).state.is_final:
        assert time.monotonic() < deadline, {name: view.item.state for name, view in bench.items(job_id).items()}
        broker.send([Message(RECONCILE, CONTROL_QUEUE)])
        time.sleep(0.5)


def test_an_image_for_which_the_kernel_kills_every_worker_ends_by_name_and_spares_the_others(
    bench, broker, start_worker, supervisor
):
    with memory_group() as group, supervisor:
        start_worker(group.command)
        group.limit(MORE_BYTES)

        job_id = bench.submit(FILES | {"huge.png": HUGE})
        huge = _see_end(bench, broker, job_id)
        kills = group.count_kills()
        after = bench.submit({"after.png": encode(draw_part(height=256, width=256, seed=50)[0], "PNG")})
        _work(bench, broker, after)

    assert (huge.state, huge.error_code) == (ItemState.FAILED, "worker_lost")
    # With the whole chunk at first, with the image alone in the end.
    assert kills >= 3
    assert bench.job(after).state is JobState.SUCCEEDED


def test_a_worker_whose_allocations_fail_ends_its_jobs_and_works_on(bench, broker, start_worker, tmp_path):
    worker = start_worker()
    # Every thread has been made: what fails afterwards is memory for images.
    warm = {
        f"warm-{seed}.png": encode(draw_part(height=256, width=256, seed=100 + seed)[0], "PNG") for seed in range(40)
    }
    _work(bench, broker, bench.submit(warm))
    limit_bytes = worker.memory_info().vms + MORE_BYTES
    resource.prlimit(worker.pid, resource.RLIMIT_AS, (limit_bytes, limit_bytes))

    huge = _see_end(bench, broker, bench.submit(FILES | {"huge.png": HUGE}))
    after = bench.submit({"after.png": encode(draw_part(height=256, width=256, seed=50)[0], "PNG")})
    _work(bench, broker, after)

    assert (huge.state, huge.error_code) == (ItemState.FAILED, "image_too_large"), _log(tmp_path)
    assert "more memory than there is" in huge.error_message
    assert bench.job(after).state is JobState.SUCCEEDED
    assert worker.is_running()
