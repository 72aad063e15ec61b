"""What the trainer's Celery process counts itself: the processes it starts. `trainer.figures` tells of their work."""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge

#: What this process counts itself.
REGISTRY: Final = CollectorRegistry()

#: What is started: a training run, or the import of a foreign model.
WORK: Final = ("run", "import-model")

#: How a process ends. `killed`: by a signal, which is how a lack of memory ends it.
ENDS: Final = ("ok", "failed", "killed")

processes_running: Final = Gauge(
    "defectoscope_training_processes_running", "Processes of this trainer that work now.", ["what"], registry=REGISTRY
)
processes_total: Final = Counter(
    "defectoscope_training_processes_total",
    "Processes of this trainer that have ended, by exit status.",
    ["what", "end"],
    registry=REGISTRY,
)

for _what in WORK:
    processes_running.labels(_what)
    for _end in ENDS:
        processes_total.labels(_what, _end)


def name_end(status: int) -> str:
    """Return the kind of end that an exit status stands for."""
    return "ok" if status == 0 else "killed" if status < 0 else "failed"
