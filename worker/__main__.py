"""Commands of the worker that need its engine: ``python -m worker predict`` and ``python -m worker doctor``."""

from __future__ import annotations

import json
import logging
import platform
import sys
from pathlib import Path
from typing import Annotated

import onnxruntime
import structlog
import typer
from rich.console import Console
from rich.progress import Progress

from defectoscope import connect
from defectoscope.errors import DefectoscopeError, NotNow
from defectoscope.errors.installation import SettingMissing
from defectoscope.errors.models import ModelNotReady
from defectoscope.registry import fetch_variant, find_champion
from defectoscope.segmentation import ResizePolicy, SegmentationParams
from defectoscope.settings import Settings, load_settings
from defectoscope.storage import open_s3
from worker.device import available_threads, check_device
from worker.engine import OnnxEngine
from worker.lane import Lane
from worker.line import engine_options
from worker.models import LoadedModels
from worker.predict import predict

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)
_stderr = Console(stderr=True)


def _model_path(model: str | None, settings: Settings) -> Path:
    """Return the file of a model given by path, or by version number on the servers; by default their champion."""
    if model is not None and not model.isdecimal():
        return Path(model)
    if settings.database.url is None:
        raise SettingMissing("No servers are known here; name a model file with --model, or start `defectoscope up`.")
    database = connect.open_database(settings)
    with database.transaction() as session:
        number = find_champion(session).number if model is None else int(model)
    return fetch_variant(
        database=database,
        storage=open_s3(connect.s3_config(settings)),
        number=number,
        precision="fp32",
        directory=settings.worker.model_cache_dir,
    )


@app.command(name="predict")
def predict_command(
    images: Annotated[list[Path], typer.Argument(help="Image files or directories.")],
    out: Annotated[Path, typer.Option(help="Directory for masks, overlays and predictions.json.")],
    model: Annotated[
        str | None, typer.Option(help="An ONNX file of the model contract, or a version number; the champion.")
    ] = None,
    threshold: Annotated[float | None, typer.Option(min=0.0, max=1.0, help="Probability; the model's own.")] = None,
    min_area: Annotated[int | None, typer.Option(min=1, help="Smallest defect, px; the model's own.")] = None,
    resize_policy: Annotated[
        ResizePolicy | None, typer.Option(help="How images come to the model's size; the model's own.")
    ] = None,
    overlays: Annotated[bool, typer.Option(help="Draw the defects of defective images.")] = True,
    json_: Annotated[bool, typer.Option("--json", help="Print the predictions as JSON.")] = False,
) -> None:
    """Segment images on this machine. With a model file no server is needed."""
    settings = load_settings()
    engine = OnnxEngine(
        _model_path(model, settings),
        options=engine_options(settings),
    )
    out.mkdir(parents=True, exist_ok=True)
    with Progress(console=_stderr, disable=not _stderr.is_terminal, transient=True) as progress:
        task = progress.add_task("Segmenting", total=None)
        predictions = predict(
            images,
            engine=engine,
            out=out,
            params=SegmentationParams(
                threshold=engine.contract.threshold if threshold is None else threshold,
                min_area_px=engine.contract.min_area_px if min_area is None else min_area,
            ),
            limits=connect.decode_limits(settings),
            overlays=overlays,
            policy=resize_policy,
            on_progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    failed = [prediction for prediction in predictions if prediction.error is not None]
    if json_:
        sys.stdout.write((out / "predictions.json").read_text())
    else:
        defective = sum(prediction.verdict == "defective" for prediction in predictions)
        print(f"{len(predictions)} images: {defective} defective, {len(failed)} failed. Written to {out}.")
        for prediction in failed:
            error = prediction.error or {}
            print(f"  {prediction.name}: {error['message']} ({error['code']})", file=sys.stderr)
    if failed:
        raise typer.Exit(1)


@app.command()
def doctor(json_: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False) -> None:
    """Say what the engine would run on here."""
    settings = load_settings()
    facts = {
        "runtime": f"onnxruntime {onnxruntime.__version__}",
        "built_providers": onnxruntime.get_available_providers(),
        "device_setting": settings.worker.device,
        "provider": check_device(settings.worker.device),
        "threads": settings.worker.intra_op_threads or available_threads(),
        "machine": platform.machine(),
        "serves": _served(settings),
    }
    if json_:
        sys.stdout.write(json.dumps(facts) + "\n")
    else:
        for name, value in facts.items():
            print(f"{name}: {value}")


def _served(settings: Settings) -> str:
    """Say which file of the champion this machine would serve, and how fast each one is here."""
    if settings.database.url is None:
        return "unknown: no servers are known here"
    database = connect.open_database(settings)
    lane = Lane(on_lost=lambda _: None)
    models = LoadedModels(
        database=database,
        storage=open_s3(connect.s3_config(settings)),
        directory=settings.worker.model_cache_dir,
        options=engine_options(settings),
        lane=lane,
        variant=settings.worker.variant,
    )
    try:
        with database.transaction() as session:
            number = find_champion(session).number
        model = models.get(number)
    except (ModelNotReady, NotNow) as exc:
        return f"unknown: {exc.message}"
    finally:
        lane.end()
        database.close()
    timings = ", ".join(f"{variant} {time_ms:.1f}" for variant, time_ms in model.timings_ms.items())
    measured = f"; milliseconds an image: {timings}" if timings else ""
    return f"{model.variant} of model {number}, {model.engine.batch_size} images at once{measured}"


def main() -> None:
    """Run a command; an expected error is one sentence and exit status 1."""
    # Standard output is the command's answer, which programs read.
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    try:
        app()
    except DefectoscopeError as exc:
        sys.exit(f"error: {exc.message} ({exc.code})")


if __name__ == "__main__":
    main()
