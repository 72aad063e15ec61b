"""The entry point: registers every noun, turns errors of ours into one sentence and an exit status.

Exit status: 0 done, 1 failed, 2 used wrongly, 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

import typer
from typer.core import TyperGroup

from defectoscope.cli import (
    audit,
    backup,
    datasets,
    defects,
    events,
    holds,
    images,
    jobs,
    models,
    results,
    retention,
    samples,
    storage,
    tokens,
    training,
    webhooks,
)
from defectoscope.cli.demo import demo
from defectoscope.cli.doctor import doctor
from defectoscope.cli.output import complain
from defectoscope.cli.predict import predict
from defectoscope.cli.settings import settings
from defectoscope.cli.up import up
from defectoscope.cli.version import version
from defectoscope.errors import DefectoscopeError

FAILED = 1
INTERRUPTED = 130

#: As a newcomer meets them. Typer itself would list single commands before nouns.
_ORDER = (
    *("up", "demo"),
    *("jobs", "results", "defects", "images", "predict"),
    *("datasets", "training", "models", "samples"),
    *("tokens", "audit", "events", "webhooks"),
    *("storage", "retention", "holds", "backup", "doctor", "settings", "version"),
)


class _InOrder(TyperGroup):
    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(
            super().list_commands(ctx), key=lambda name: _ORDER.index(name) if name in _ORDER else len(_ORDER)
        )


app = typer.Typer(
    name="defectoscope",
    help="Turns a bucket of industrial images into defect records.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    cls=_InOrder,
    context_settings={"help_option_names": ["--help", "-h"]},
)

_RUNNING = "Run it"
_INSPECTING = "Inspect"
_LEARNING = "Learn"
_LOOKING = "Look after the installation"

app.command(rich_help_panel=_RUNNING)(up)
app.command(rich_help_panel=_RUNNING)(demo)
app.add_typer(jobs.app, name="jobs", rich_help_panel=_INSPECTING)
app.add_typer(results.app, name="results", rich_help_panel=_INSPECTING)
app.add_typer(defects.app, name="defects", rich_help_panel=_INSPECTING)
app.add_typer(images.app, name="images", rich_help_panel=_INSPECTING)
app.command(rich_help_panel=_INSPECTING)(predict)
app.add_typer(datasets.app, name="datasets", rich_help_panel=_LEARNING)
app.add_typer(training.app, name="training", rich_help_panel=_LEARNING)
app.add_typer(models.app, name="models", rich_help_panel=_LEARNING)
app.add_typer(samples.app, name="samples", rich_help_panel=_LEARNING)
app.add_typer(tokens.app, name="tokens", rich_help_panel=_LOOKING)
app.add_typer(audit.app, name="audit", rich_help_panel=_LOOKING)
app.add_typer(events.app, name="events", rich_help_panel=_LOOKING)
app.add_typer(webhooks.app, name="webhooks", rich_help_panel=_LOOKING)
app.add_typer(storage.app, name="storage", rich_help_panel=_LOOKING)
app.add_typer(retention.app, name="retention", rich_help_panel=_LOOKING)
app.add_typer(holds.app, name="holds", rich_help_panel=_LOOKING)
app.add_typer(backup.app, name="backup", rich_help_panel=_LOOKING)
app.command(rich_help_panel=_LOOKING)(doctor)
app.command(rich_help_panel=_LOOKING)(settings)
app.command(rich_help_panel=_LOOKING)(version)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: what follows the program's name; by default those of this process.

    Returns:
        The exit status.
    """
    try:
        status = app(args=arguments, prog_name="defectoscope", standalone_mode=False)
        sys.stdout.flush()
    except typer.TyperException as exc:
        _complain_of_usage(exc)
        return exc.exit_code
    except DefectoscopeError as exc:
        complain(f"{exc.message} ({exc.code})")
        return FAILED
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output, such as `head`, has seen enough. Python would complain again when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    return status if isinstance(status, int) else 0


def _complain_of_usage(exc: typer.TyperException) -> None:
    message = exc.format_message()
    # A noun without a verb: its help was printed already.
    if not message:
        return
    context = getattr(exc, "ctx", None)
    hint = f" See `{context.command_path} --help`." if context is not None else ""
    complain(f"{message}{'' if message.endswith(('.', '?')) else '.'}{hint}")
