"""The calls about learning: labels, datasets, training runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

from defectoscope.client.looking import download
from defectoscope.client.pages import each
from defectoscope.client.transport import Transport
from defectoscope.client.wire import (
    CreatedDataset,
    Dataset,
    DatasetEntry,
    DatasetItem,
    LabelEntry,
    Night,
    RegisteredLabel,
    TrainingRun,
)

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

    def create(
        self, name: str, entries: Sequence[DatasetEntry], *, extends: bool = False, val_fraction: float = 0.2
    ) -> CreatedDataset:
        """Record a revision; the same set as an earlier one gives that one again.

        Args:
            name: of the dataset.
            entries: its labels; at most 50 000 at once.
            extends: whether what the latest revision has stays in.
            val_fraction: share of validation that is aimed at where an entry wishes no side.
        """
        body = {"name": name, "extends": extends, "val_fraction": val_fraction, "entries": list(entries)}
        answer = self.transport.call("POST", "/v1/datasets", json=body, repeatable=True, timeout_s=_LONG_S)
        return cast("CreatedDataset", answer)

    def list(self, *, limit: int | None = None) -> Iterator[Dataset]:
        """Yield dataset revisions, newest first."""
        return each(self.transport, "/v1/datasets", limit=limit)

    def get(self, reference: str) -> Dataset:
        """Return a revision by ``name`` (the latest) or ``name@number``."""
        return cast("Dataset", self.transport.call("GET", f"/v1/datasets/{quote(reference, safe='@')}"))

    def items(self, reference: str, *, limit: int | None = None) -> Iterator[DatasetItem]:
        """Yield the labelled images of a revision, with addresses that are good for an hour."""
        return each(self.transport, f"/v1/datasets/{quote(reference, safe='@')}/items", limit=limit)


@dataclass(frozen=True, slots=True)
class TrainingCalls:
    """Training runs and nights: start, cancel, look."""

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

    def cancel(self, run_id: int) -> TrainingRun:
        """End a run that is wanted no more."""
        return cast("TrainingRun", self.transport.call("POST", f"/v1/training-runs/{run_id}/cancel"))

    def download_report(self, run_id: int, path: Path) -> None:
        """Write the page with the curves and overlays of a run to a file; it appears whole or not at all."""
        download(self.transport, f"/v1/training-runs/{run_id}/report", path)

    def nights(self, *, limit: int | None = None) -> Iterator[Night]:
        """Yield the nights of the retraining schedule, newest first."""
        return each(self.transport, "/v1/nights", limit=limit)
