"""The trainer's command line: `python -m trainer run RUN_ID` and `python -m trainer train DIR --out DIR`.

`run` is what the Celery task starts, one process for each run: it can be killed without killing the worker, it gives
its memory back, and it may start reading workers or further GPU processes, which a pool's thread or daemonic child may
not. `train` needs no server.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import structlog
import typer

from defectoscope import connect
from defectoscope.crash_points import arm_crash_point
from defectoscope.errors import DefectoscopeError
from defectoscope.errors.api import InvalidRequest
from defectoscope.errors.installation import ComponentMissing
from defectoscope.logs import configure_logs
from defectoscope.registry import claim_import
from defectoscope.settings import load_settings
from defectoscope.training import claim_run
from trainer.config import TrainingConfig
from trainer.exclusive import sole_training
from trainer.interruption import Interruption
from trainer.lease import RunLease, name_owner

log = structlog.get_logger(__name__)
#: Longer than the check of a file may take: it is one call, in which nothing can be renewed.
IMPORT_LEASE_S = 1200
Device = Literal["auto", "cpu", "cuda"]
commands = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)


@commands.command()
def run(
    run_id: Annotated[int, typer.Argument(help="id of a pending training run")],
    stop_with_stdin: Annotated[
        bool, typer.Option("--stop-with-stdin", help="stop as at SIGTERM when standard input ends")
    ] = False,
) -> None:
    """Claim a training run and do it; does nothing when it is not pending."""
    settings = load_settings()
    arm_crash_point()
    configure_logs(level=settings.log.level, form=settings.log.format, service="training")
    interruption = Interruption()
    if stop_with_stdin:
        interruption.by_end_of(sys.stdin.fileno())
    database = connect.open_database(settings)
    lease_s = settings.trainer.lease_s
    with interruption.by_signals(), sole_training(settings.trainer.work_dir) as is_sole:
        if not is_sole:
            # The run stays owed; the reconciler sends its message again.
            log.info("training_run.postponed", run_id=run_id, reason="another training is under way on this machine")
            return
        claimed = claim_run(database=database, run_id=run_id, owner=name_owner(), lease_s=lease_s)
        if claimed is None:
            log.info("training_run.not_owed", run_id=run_id)
            return
        lease = RunLease(
            claimed,
            database=database,
            lease_s=lease_s,
            max_attempts=settings.trainer.max_attempts,
            interruption=interruption,
        )
        with lease.held():
            # Imported only now: a message that finds nothing owed shall not cost the seconds that torch takes.
            try:
                from trainer.run import execute_run  # noqa: PLC0415
                from trainer.workplace import Workplace  # noqa: PLC0415
            except ImportError as exc:
                raise ComponentMissing(f"Training needs the trainer extra: {exc}.") from exc
            execute_run(claimed, lease=lease, place=Workplace.open(settings, database=database))


@commands.command("import-model")
def import_model(
    import_id: Annotated[int, typer.Argument(help="id of a pending import")],
    stop_with_stdin: Annotated[
        bool, typer.Option("--stop-with-stdin", help="stop as at SIGTERM when standard input ends")
    ] = False,
) -> None:
    """Claim the import of a foreign model and do it; does nothing when it is not pending."""
    settings = load_settings()
    configure_logs(level=settings.log.level, form=settings.log.format, service="import")
    interruption = Interruption()
    if stop_with_stdin:
        interruption.by_end_of(sys.stdin.fileno())
    database = connect.open_database(settings)
    with interruption.by_signals():
        claimed = claim_import(database=database, import_id=import_id, lease_s=IMPORT_LEASE_S)
        if claimed is None:
            log.info("model_import.not_owed", import_id=import_id)
            return
        try:
            from trainer.model_imports import execute_import  # noqa: PLC0415
            from trainer.workplace import Workplace  # noqa: PLC0415
        except ImportError as exc:
            raise ComponentMissing(f"Importing a model needs the trainer extra: {exc}.") from exc
        place = Workplace.open(settings, database=database)
        execute_import(
            claimed,
            database=database,
            storage=place.storage,
            cache=place.cache,
            work_dir=place.work_dir,
            lease_s=IMPORT_LEASE_S,
            interruption=interruption,
        )


@commands.command()
def train(
    directory: Annotated[
        Path, typer.Argument(help="directory with images/ and labels/, split into train and val or flat")
    ],
    out: Annotated[Path, typer.Option(help="where model.onnx and metrics.json are written")],
    preset: Annotated[str, typer.Option(help="recipe to start from: default or quick")] = "default",
    config: Annotated[Path | None, typer.Option(help="JSON file with fields that change the recipe")] = None,
    device: Annotated[Device, typer.Option(help="where to train")] = "auto",
) -> None:
    """Train on a directory, without any server; the model file keeps the contract that workers serve."""
    settings = load_settings()
    configure_logs(level=settings.log.level, form=settings.log.format, service="training")
    changes = _read_json(config) if config else {}
    recipe = TrainingConfig.resolve({"preset": preset, **changes})
    interruption = Interruption()
    with interruption.by_signals():
        # Imported only now, so that --help and mistakes in the recipe answer at once.
        try:
            from trainer.local import train_directory  # noqa: PLC0415
        except ImportError as exc:
            raise ComponentMissing(f"Training needs the trainer extra: {exc}.") from exc
        figures = train_directory(directory, out=out, config=recipe, device=device, interruption=interruption)
    typer.echo(json.dumps(figures["validation"], indent=2))


@commands.command()
def wrap(
    model: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, help="foreign ONNX file: floats in, logits out")
    ],
    out: Annotated[Path, typer.Argument(help="file of the model contract to write")],
    architecture: Annotated[str, typer.Option(help="of its network, any text")] = "unknown",
    encoder: Annotated[str, typer.Option(help="of its network, any text")] = "unknown",
    size: Annotated[str | None, typer.Option(help="WIDTHxHEIGHT, where the file takes images of any size")] = None,
    threshold: Annotated[float, typer.Option(help="probability from which a pixel is defect")] = 0.5,
    min_area_px: Annotated[int, typer.Option(help="smaller regions are dropped, pixels of the original image")] = 16,
    timeout_s: Annotated[float, typer.Option(help="seconds the check may take")] = 900.0,
    as_json: Annotated[bool, typer.Option("--json", help="print report or error as JSON")] = False,
) -> None:
    """Wrap a foreign ONNX file into the model contract, in a limited process, and prove that both are equal."""
    # Imported only now, so that --help answers at once.
    from trainer.foreign import ForeignFacts, ProcessLimits, wrap_in_process  # noqa: PLC0415

    try:
        report = wrap_in_process(
            model,
            out=out,
            facts=ForeignFacts(
                architecture=architecture,
                encoder=encoder,
                size_wh=_read_size(size) if size else None,
                threshold=threshold,
                min_area_px=min_area_px,
            ),
            process_limits=ProcessLimits(timeout_s=timeout_s),
        )
    except DefectoscopeError as exc:
        if as_json:
            error = {"code": exc.code, "message": exc.message, "details": exc.details}
            typer.echo(json.dumps({"error": error}, indent=2))
        raise
    typer.echo(json.dumps(report.to_json(), indent=2) if as_json else f"wrapped {model} into {out}")


@commands.command()
def plain(
    model: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="fp32 file of the model contract")],
    out: Annotated[Path, typer.Argument(help="file to write, or a directory for deeplabv3_plus_model.onnx")],
) -> None:
    """Write a served model as the plain ONNX file of a notebook: normalised floats in, logits of two channels out."""
    from trainer.plain import to_plain  # noqa: PLC0415 -- imported only now, so that --help answers at once

    typer.echo(json.dumps(to_plain(model, out).to_json(), indent=2))


def _read_size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    if not (text.isascii() and width.isdigit() and height.isdigit()):
        raise InvalidRequest(f'The size "{text}" is not a width and a height, such as "256x256".')
    return int(width), int(height)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text())
    except (OSError, ValueError) as exc:
        raise InvalidRequest(f"{path} cannot be read as JSON: {exc}.") from exc
    if not isinstance(values, dict):
        raise InvalidRequest(f"{path} holds no JSON object.")
    return values


def main() -> None:
    """Run a command; a named error is one sentence on standard error and exit status 1."""
    try:
        commands()
    except DefectoscopeError as exc:
        typer.echo(f"error: {exc.message} ({exc.code})", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
