"""`defectoscope audit`: who asked for which change, and what came of it."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from defectoscope.cli.moments import format_time
from defectoscope.cli.output import print_json_items, print_table
from defectoscope.cli.session import JsonOption, LimitOption, open_client

app = typer.Typer(no_args_is_help=True, help="List who asked for which change, and what came of it.")

_FIRST_REFUSAL = 400
_WIDTH = 60


@app.command("list")
def list_entries(
    token: Annotated[int | None, typer.Option(metavar="TOKEN", help="Only of this token.")] = None,
    limit: LimitOption = 50,
    as_json: JsonOption = False,
) -> None:
    """List lines of the audit log, newest first."""
    with open_client() as client:
        entries = client.audit.list(token=token, limit=limit or None)
        if as_json:
            print_json_items(entries)
            return
        print_table(
            {"when": "left", "who": "left", "asked": "left", "about": "left", "outcome": "left", "request": "left"},
            [
                [
                    format_time(entry["created_at"]),
                    entry["actor"] if entry["token_id"] is None else f"{entry['actor']} ({entry['token_id']})",
                    entry["action"],
                    entry["subject"],
                    _outcome_of(entry["status"], entry["error_code"]),
                    entry["request_id"],
                ]
                for entry in entries
            ],
            empty="Nobody has asked for a change.",
            column_width=_WIDTH,
        )


def _outcome_of(status: int | None, code: str | None) -> Text:
    if status is None:
        return Text("no answer", style="bold red")
    return Text(f"{status} {code}" if code else str(status), style="yellow" if status >= _FIRST_REFUSAL else "")
