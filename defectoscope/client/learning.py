"""The calls about learning: labels, datasets, training runs, models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import quote

from defectoscope.client.pages import each
from defectoscope.client.transport import Transport
from defectoscope.client.wire import Dataset, DatasetEntry, LabelEntry, RegisteredLabel, TrainingRun

#: For requests whose every entry the server looks at before it answers.
_LONG_S = 300.0


@dataclass(frozen=True, slots=True)
class LabelCalls:
    """Labels: register."""

    transport: Transport

    def register(self, entries: Sequence[LabelEntry], *, source: str) -> list[RegisteredLabel]:
        """Register labels with their images; at most 100. Each entry has its own outcome.

        Args:
            entries: addresses of stored images and labels.
            source: where the labels come from, such as ``dataset:steel``.
        """
        body = {"source": source, "entries": list(entries)}
        answer = self.transport.call("POST", "/v1/labels", json=body, repeatable=True, timeout_s=_LONG_S)
        return cast("list[RegisteredLabel]", answer["items"])


@dataclass(frozen=True, slots=True)
class DatasetCalls:
    """Dataset revisions: create, look."""

    transport: Transport

    def create(self, name: str, entries: Sequence[DatasetEntry]) -> Dataset:
        """Record a revision; the same set as the latest one gives that one again."""
        body = {"name": name, "entries": list(entries)}
        return cast(
            "Dataset", self.transport.call("POST", "/v1/datasets", json=body, repeatable=True, timeout_s=_LONG_S)
        )

    def list(self, *, limit: int | None = None) -> Iterator[Dataset]:
        """Yield dataset revisions, newest first."""
        return each(self.transport, "/v1/datasets", limit=limit)

    def get(self, reference: str) -> Dataset:
        """Return a revision by ``name`` (the latest) or ``name@number``."""
        return cast("Dataset", self.transport.call("GET", f"/v1/datasets/{quote(reference, safe='@')}"))


@dataclass(frozen=True, slots=True)
class TrainingCalls:
    """Training runs: start, look."""

    transport: Transport

    def start(self, dataset: str, *, config: Mapping[str, Any]) -> TrainingRun:
        """Ask for a training run. Sent once: a repetition would train twice."""
        body = {"dataset": dataset, "config": dict(config)}
        return cast("TrainingRun", self.transport.call("POST", "/v1/training-runs", json=body))

    def list(self, *, limit: int | None = None) -> Iterator[TrainingRun]:
        """Yield training runs, newest first."""
        return each(self.transport, "/v1/training-runs", limit=limit)

    def get(self, run_id: int) -> TrainingRun:
        """Return a training run with the metrics of its epochs."""
        return cast("TrainingRun", self.transport.call("GET", f"/v1/training-runs/{run_id}"))


@dataclass(frozen=True, slots=True)
class ModelCalls:
    """Model versions: look."""

    transport: Transport

    def list(self, *, limit: int | None = None) -> Iterator[dict[str, Any]]:
        """Yield model versions, newest first."""
        return each(self.transport, "/v1/models", limit=limit)

    def get(self, number: int) -> dict[str, Any]:
        """Return a model version."""
        return cast("dict[str, Any]", self.transport.call("GET", f"/v1/models/{number}"))
