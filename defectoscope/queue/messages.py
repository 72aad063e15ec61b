"""Task names, queues and payloads: the whole vocabulary spoken over the broker.

A message is a doorbell. Most say which row to look at; the one for chunks only says that somebody should look. Whether
anything is owed, and what is next, is decided in SQL.
"""

from __future__ import annotations

from dataclasses import dataclass

#: Chunks, enumeration: taken by inspection workers.
INSPECTION_QUEUE = "inspection"
#: Short housekeeping that must not wait behind a million chunks: taken by inspection workers too.
CONTROL_QUEUE = "control"
#: Training runs and imports of models: taken by trainers.
TRAINING_QUEUE = "training"

PROCESS_NEXT_CHUNK = "inspection.process_next_chunk"
ENUMERATE_JOB = "inspection.enumerate_job"
RECONCILE = "inspection.reconcile"
COLLECT_OBJECTS = "storage.collect_objects"
START_NIGHT = "training.start_night"
RUN_TRAINING = "training.run"
IMPORT_MODEL = "training.import_model"


@dataclass(frozen=True, slots=True)
class Message:
    """One task call: a name, a queue and the id of the row to look at."""

    task: str
    queue: str
    args: tuple[int, ...] = ()


def process_next_chunk() -> Message:
    """Ask a worker to take the chunk whose turn it is."""
    return Message(PROCESS_NEXT_CHUNK, INSPECTION_QUEUE)


def enumerate_job(job_id: int) -> Message:
    """Ask a worker to list the images of a job."""
    return Message(ENUMERATE_JOB, INSPECTION_QUEUE, (job_id,))


def collect_objects() -> Message:
    """Ask a worker to go on deleting stored objects that nothing refers to."""
    return Message(COLLECT_OBJECTS, CONTROL_QUEUE)


def run_training(run_id: int) -> Message:
    """Ask a trainer to look at a training run."""
    return Message(RUN_TRAINING, TRAINING_QUEUE, (run_id,))


def import_model(import_id: int) -> Message:
    """Ask a trainer to look at the import of a model."""
    return Message(IMPORT_MODEL, TRAINING_QUEUE, (import_id,))
