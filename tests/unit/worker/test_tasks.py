from __future__ import annotations

import pytest

from defectoscope.errors.installation import OutOfMemory
from defectoscope.queue import make_celery, messages
from worker.tasks import register_tasks


class Starved:
    """A worker's use cases where there is no memory for any of them."""

    def process_next_chunk(self):
        bytearray(2**62)

    def enumerate_job(self, job_id):
        bytearray(2**62 + job_id)

    reconcile = collect_objects = start_night = process_next_chunk


@pytest.fixture(scope="module")
def tasks():
    # Once for a process: Celery hands tasks on to every application that comes after.
    app = make_celery("test", broker_url="memory://", key_prefix="")
    register_tasks(app, Starved())
    return app.tasks


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        pytest.param(messages.PROCESS_NEXT_CHUNK, (), id="chunk"),
        pytest.param(messages.ENUMERATE_JOB, (1,), id="enumeration"),
        pytest.param(messages.RECONCILE, (), id="reconciliation"),
        pytest.param(messages.COLLECT_OBJECTS, (), id="collection"),
        pytest.param(messages.START_NIGHT, (), id="night"),
    ],
)
def test_a_lack_of_memory_leaves_a_task_as_an_error_that_celery_tells_of(tasks, name, arguments):
    with pytest.raises(OutOfMemory) as failure:
        tasks[name](*arguments)

    assert isinstance(failure.value.__cause__, MemoryError)
