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
from defectoscope.errors import ComponentMissing, DefectoscopeError, InvalidRequest
from defectoscope.logs import configure_logs
from defectoscope.settings import load_settings
from defectoscope.storage import open_s3
from defectoscope.training import claim_run
from trainer.config import TrainingConfig
from trainer.interruption import Interruption
from trainer.lease import RunLease, name_owner

log = structlog.get_logger(__name__)
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
    configure_logs(level=settings.log.level, form=settings.log.format, service="training")
    interruption = Interruption()
    if stop_with_stdin:
        interruption.by_end_of(sys.stdin.fileno())
    database = connect.open_database(settings)
    lease_s = settings.trainer.lease_s
    with interruption.by_signals():
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
            except ImportError as exc:
                raise ComponentMissing(f"Training needs the trainer extra: {exc}.") from exc
            execute_run(
                claimed,
                lease=lease,
                database=database,
                storage=open_s3(connect.s3_config(settings)),
                work_dir=settings.trainer.work_dir,
                device=settings.trainer.device,
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
