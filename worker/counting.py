"""Counts what became of chunks and their images, where the database has confirmed it."""

from __future__ import annotations

from collections.abc import Iterable

from defectoscope.inspection.completion import ItemOutcome
from worker.metrics import images_total


def count_completed(outcomes: Iterable[ItemOutcome]) -> None:
    """Count the images of a chunk whose transaction has committed; those of a chunk that was lost count elsewhere."""
    for outcome in outcomes:
        if outcome.error is not None:
            ended = "failed"
        elif outcome.result is None:
            ended = "known"
        else:
            ended = "defective" if outcome.result.defects else "clean"
        images_total.labels(ended).inc()
