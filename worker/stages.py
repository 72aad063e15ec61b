"""Times the steps of the pipeline, by the clock and by the processor."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter, thread_time

from worker import metrics


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Count the time of a `with` block under a stage of `worker.metrics`; the thread's own CPU time only."""
    began_at, cpu_began_at = perf_counter(), thread_time()
    try:
        yield
    finally:
        metrics.stage_cpu_seconds_total.labels(name).inc(thread_time() - cpu_began_at)
        metrics.stage_seconds.labels(name).observe(perf_counter() - began_at)
