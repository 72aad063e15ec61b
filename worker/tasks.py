"""Celery tasks of the worker: an id or nothing in, one use case, nothing out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from celery import Celery

from defectoscope.errors.installation import OutOfMemory
from defectoscope.queue import messages
from worker.inspector import Inspector


def register_tasks(app: Celery, inspector: Inspector) -> None:
    """Register every task of the worker on a Celery application."""

    @app.task(name=messages.PROCESS_NEXT_CHUNK)  # type: ignore[untyped-decorator]
    def process_next_chunk() -> None:
        with _naming_a_lack_of_memory():
            inspector.process_next_chunk()

    @app.task(name=messages.ENUMERATE_JOB)  # type: ignore[untyped-decorator]
    def enumerate_job(job_id: int) -> None:
        with _naming_a_lack_of_memory():
            inspector.enumerate_job(job_id)

    @app.task(name=messages.RECONCILE)  # type: ignore[untyped-decorator]
    def reconcile() -> None:
        with _naming_a_lack_of_memory():
            inspector.reconcile()

    @app.task(name=messages.COLLECT_OBJECTS)  # type: ignore[untyped-decorator]
    def collect_objects() -> None:
        with _naming_a_lack_of_memory():
            inspector.collect_objects()

    @app.task(name=messages.START_NIGHT)  # type: ignore[untyped-decorator]
    def start_night() -> None:
        with _naming_a_lack_of_memory():
            inspector.start_night()


@contextmanager
def _naming_a_lack_of_memory() -> Iterator[None]:
    """Have it leave as an error of ours.

    Celery lets `MemoryError`, of all errors, through to its pool, and a pool of threads never hears of such a task
    again: its message stays unanswered, its place stays taken, and after a few the worker lives and does nothing.

    Raises:
        OutOfMemory: there was a lack of memory.
    """
    try:
        yield
    except MemoryError as exc:
        raise OutOfMemory from exc
