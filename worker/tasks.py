"""Celery tasks of the worker: an id or nothing in, one use case, nothing out."""

from __future__ import annotations

from celery import Celery

from defectoscope.queue import messages
from worker.inspector import Inspector


def register_tasks(app: Celery, inspector: Inspector) -> None:
    """Register every task of the worker on a Celery application."""

    @app.task(name=messages.PROCESS_NEXT_CHUNK)  # type: ignore[untyped-decorator]
    def process_next_chunk() -> None:
        inspector.process_next_chunk()

    @app.task(name=messages.ENUMERATE_JOB)  # type: ignore[untyped-decorator]
    def enumerate_job(job_id: int) -> None:
        inspector.enumerate_job(job_id)

    @app.task(name=messages.RECONCILE)  # type: ignore[untyped-decorator]
    def reconcile() -> None:
        inspector.reconcile()

    @app.task(name=messages.COLLECT_OBJECTS)  # type: ignore[untyped-decorator]
    def collect_objects() -> None:
        inspector.collect_objects()

    @app.task(name=messages.START_NIGHT)  # type: ignore[untyped-decorator]
    def start_night() -> None:
        inspector.start_night()
