from __future__ import annotations

import pytest

from defectoscope.queue import MemoryQueue
from tests.integration.worker.bench import Bench
from tests.integration.worker.processes import WorkerProcesses
from worker.inspector import Inspector


@pytest.fixture
def inspector(settings):
    inspector = Inspector(settings)
    yield inspector
    inspector.close()


@pytest.fixture
def bench(settings, database, storage, inspector, tmp_path):
    """A worker with a model in service, and a hand to give it jobs."""
    bench = Bench(settings=settings, database=database, queue=MemoryQueue(), storage=storage, inspector=inspector)
    bench.put_model_in_service(tmp_path)
    return bench


@pytest.fixture
def processes(settings, tmp_path):
    """Starts real worker processes; what is left of them is killed in the end."""
    processes = WorkerProcesses(settings, tmp_path)
    yield processes
    processes.end()
