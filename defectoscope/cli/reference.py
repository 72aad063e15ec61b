"""Writes `docs/cli.md` from the commands themselves: ``python -m defectoscope.cli.reference > docs/cli.md``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from typer.main import get_command

from defectoscope.cli.main import app

_HEAD = """\
# The command line

`defectoscope NOUN VERB`. Every command takes `--help`, which needs no settings and no server.

- Answers go to standard output, progress and remarks to standard error. With `--json` standard output holds one JSON
  document and nothing else.
- Exit status: 0 done, 1 failed, 2 used wrongly, 130 interrupted. A failure is one sentence on standard error with a
  stable code in brackets, such as `error: There is no job 7. (job_not_found)`.
- The API is found through `DEFECTOSCOPE_API__URL` or the connection file of `defectoscope up`; see
  [settings.md](settings.md).

This page is made by `python -m defectoscope.cli.reference`; a test compares the two.
"""


def to_markdown() -> str:
    """Return the page of all commands, in the order of the help."""
    return _HEAD + "".join(_describe(get_command(app), "defectoscope"))


def _describe(command: Any, path: str) -> Iterator[str]:
    context = command.context_class(command, info_name=path)
    if hasattr(command, "list_commands"):
        if path != "defectoscope":
            yield f"\n## {path}\n\n{_prose(command.help)}\n"
        for name in command.list_commands(context):
            yield from _describe(command.get_command(context, name), f"{path} {name}")
        return
    usage = " ".join(command.collect_usage_pieces(context)).replace("{", "").replace("}", "")
    depth = "##" if path.count(" ") == 1 else "###"
    yield f"\n{depth} {path}\n\n```\n{path} {usage}\n```\n\n{_prose(command.help)}\n"
    rows = [_row(parameter, context) for parameter in command.params if not parameter.hidden]
    if rows:
        yield "\n| | |\n|---|---|\n" + "".join(rows)


def _row(parameter: Any, context: Any) -> str:
    is_argument = parameter.param_type_name == "argument"
    kind = parameter.display_type_rich(ctx=context) or ""
    if is_argument:
        names = f"`{parameter.metavar or parameter.name}`"
    else:
        flags = ", ".join(f"`{name}`" for name in [*parameter.opts, *parameter.secondary_opts])
        names = f"{flags} `{kind}`" if kind else flags
    default = parameter.default
    has_default = default not in (None, False, True, ()) and parameter.show_default
    return (
        f"| {_escaped(names)} | {_escaped(parameter.help or '')}{f' Default: `{default}`.' if has_default else ''} |\n"
    )


def _prose(text: str | None) -> str:
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in (text or "").split("\n\n"))


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    sys.stdout.write(to_markdown())
