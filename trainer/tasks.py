"""The trainer's one task: start a process for a training run and wait for it. No torch, no numpy, no SQL."""

from __future__ import annotations

from celery import Celery
from celery.signals import worker_shutting_down

from defectoscope.queue.messages import RUN_TRAINING
from trainer.subprocesses import RunProcesses


def register_tasks(app: Celery) -> None:
    """Give an application the task, and have its processes end when the worker is told to."""
    processes = RunProcesses()

    # Acknowledged at once: a training outlasts the broker's patience, and a second delivery of the message would be
    # made every quarter of an hour. A lost one is sent again by the reconciler.
    @app.task(name=RUN_TRAINING, acks_late=False)  # type: ignore[untyped-decorator]  # Celery ships no types
    def run_training(run_id: int) -> None:
        processes.run(run_id)

    def stop(**_: object) -> None:
        processes.stop()

    # Not weakly: nothing else holds the function.
    worker_shutting_down.connect(stop, weak=False)
