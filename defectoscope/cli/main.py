"""The entry point: registers every noun, turns errors of ours into one sentence and an exit status.

Exit status: 0 done, 1 failed, 2 used wrongly, 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import typer

from defectoscope.cli import jobs
from defectoscope.cli.output import complain
from defectoscope.errors import DefectoscopeError

FAILED = 1
INTERRUPTED = 130

app = typer.Typer(
    name="defectoscope",
    help="Turns a bucket of industrial images into defect records.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)
app.add_typer(jobs.app, name="jobs")


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
