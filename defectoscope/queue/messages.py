"""Task names, queues and payloads: the whole vocabulary spoken over the broker.

A message is a doorbell. It says which row to look at; whether anything is owed there is decided in SQL.
"""

from __future__ import annotations

from dataclasses import dataclass

#: Chunks, enumeration: taken by inspection workers.
INSPECTION_QUEUE = "inspection"
#: Short housekeeping that must not wait behind a million chunks: taken by inspection workers too.
CONTROL_QUEUE = "control"
#: Training runs and imports of models: taken by trainers.
TRAINING_QUEUE = "training"

PROCESS_CHUNK = "inspection.process_chunk"
ENUMERATE_JOB = "inspection.enumerate_job"
RECONCILE = "inspection.reconcile"
START_NIGHT = "training.start_night"
RUN_TRAINING = "training.run"
IMPORT_MODEL = "training.import_model"


@dataclass(frozen=True, slots=True)
class Message:
    """One task call: a name, a queue and the id of the row to look at."""

    task: str
    queue: str
    args: tuple[int, ...] = ()


def process_chunk(chunk_id: int) -> Message:
    """Ask a worker to look at a chunk."""
    return Message(PROCESS_CHUNK, INSPECTION_QUEUE, (chunk_id,))


def enumerate_job(job_id: int) -> Message:
    """Ask a worker to list the images of a job."""
    return Message(ENUMERATE_JOB, INSPECTION_QUEUE, (job_id,))


def run_training(run_id: int) -> Message:
    """Ask a trainer to look at a training run."""
    return Message(RUN_TRAINING, TRAINING_QUEUE, (run_id,))


def import_model(import_id: int) -> Message:
    """Ask a trainer to look at the import of a model."""
    return Message(IMPORT_MODEL, TRAINING_QUEUE, (import_id,))
