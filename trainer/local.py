"""Training by hand on a directory: no database, no queue, no storage; a model file and its figures come out."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import structlog

from trainer.build import build_model
from trainer.config import TrainingConfig
from trainer.data import read_directory
from trainer.failures import named_failures
from trainer.interruption import Interruption
from trainer.report import write_report

log = structlog.get_logger(__name__)


def train_directory(
    directory: Path,
    *,
    out: Path,
    config: TrainingConfig,
    device: Literal["auto", "cpu", "cuda"],
    interruption: Interruption,
) -> dict[str, Any]:
    """Train on a directory and write the model, its figures and a page about both.

    ``model.onnx`` is the fp32 file, ``model-int8.onnx`` and ``model-fp16.onnx`` the variants that are close enough to
    it, ``metrics.json`` every figure, ``report.html`` the curves and overlays. Each is complete or not there.

    Args:
        directory: labelled images, as `trainer.data.read_directory` takes them.
        out: made when missing; earlier files of these names are replaced.
        config: the recipe.
        device: where to train.
        interruption: asked whether to stop.

    Returns:
        What is in ``metrics.json``.

    Raises:
        DefectoscopeError: nothing was written.
    """
    observer = _Listener(interruption)
    with named_failures(), _scratch(out) as scratch:
        files = read_directory(directory)
        model = build_model(
            files,
            config=config,
            dataset_revision=None,
            device=device,
            work_dir=scratch,
            observer=observer,
        )
        figures = {"config": config.to_json(), **model.figures, "epochs": observer.epochs}
        metrics = scratch / "metrics.json"
        metrics.write_text(json.dumps(figures, indent=2) + "\n")
        report = scratch / "report.html"
        write_report(
            report,
            title=f"Training on {directory.name}",
            facts={"directory": directory.name},
            recipe=config.to_json(),
            epochs=observer.epochs,
            figures=model.figures,
            overlays=model.overlays,
        )
        for variant in model.variants:
            name = "model.onnx" if variant.precision == "fp32" else f"model-{variant.precision}.onnx"
            if variant.path is None:
                # An earlier training's file would pass for this one's.
                (out / name).unlink(missing_ok=True)
            else:
                variant.path.replace(out / name)
        report.replace(out / "report.html")
        metrics.replace(out / "metrics.json")
    return figures


@contextmanager
def _scratch(out: Path) -> Iterator[Path]:
    """Make a directory inside the output directory, so that the last step is a rename and not a copy."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=".training-") as scratch:
        yield Path(scratch)


class _Listener:
    """Says what happens, and remembers the figures of each epoch."""

    def __init__(self, interruption: Interruption) -> None:
        self.epochs: list[dict[str, float]] = []
        self._interruption = interruption

    def stage(self, name: str) -> None:
        self.check()
        log.info("training.stage", stage=name)

    def epoch(self, epoch: int, figures: dict[str, float]) -> None:
        self.epochs.append({"epoch": epoch, **figures})
        log.info("training.epoch", epoch=epoch, **figures)

    def found(self, figures: dict[str, Any]) -> None:
        log.info("training.found", **figures)

    def check(self) -> None:
        self._interruption.check()
