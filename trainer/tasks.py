"""The trainer's tasks: start a process for a training run or an import and wait for it. No torch, no numpy, no SQL."""

from __future__ import annotations

from celery import Celery
from celery.signals import worker_shutting_down

from defectoscope.queue.messages import IMPORT_MODEL, RUN_TRAINING
from trainer.subprocesses import WorkProcesses


def register_tasks(app: Celery) -> None:
    """Give an application its tasks, and have their processes end when the worker is told to."""
    processes = WorkProcesses()

    # Acknowledged at once: a training outlasts the broker's patience, and a second delivery of the message would be
    # made every quarter of an hour. A lost one is sent again by the reconciler.
    @app.task(name=RUN_TRAINING, acks_late=False)  # type: ignore[untyped-decorator]  # Celery ships no types
    def run_training(run_id: int) -> None:
        processes.run("run", run_id)

    @app.task(name=IMPORT_MODEL, acks_late=False)  # type: ignore[untyped-decorator]
    def import_model(import_id: int) -> None:
        processes.run("import-model", import_id)

    def stop(**_: object) -> None:
        processes.stop()

    # Not weakly: nothing else holds the function.
    worker_shutting_down.connect(stop, weak=False)
