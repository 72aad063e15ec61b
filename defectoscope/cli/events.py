"""`defectoscope events`: what happened that somebody may want to be told of."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from defectoscope.cli.moments import format_time
from defectoscope.cli.output import print_json_items, print_table
from defectoscope.cli.session import JsonOption, LimitOption, open_client

app = typer.Typer(no_args_is_help=True, help="List what happened: promotions, refusals, failures, skipped nights.")

_MESSAGE_WIDTH = 90
_STYLES = {"info": "", "warning": "yellow", "error": "bold red"}


@app.command("list")
def list_events(
    kind: Annotated[str | None, typer.Option(metavar="KIND", help="Only of this kind, such as model.promoted.")] = None,
    limit: LimitOption = 50,
    as_json: JsonOption = False,
) -> None:
    """List events, newest first."""
    with open_client() as client:
        events = client.events.list(kind=kind, limit=limit or None)
        if as_json:
            print_json_items(events)
            return
        print_table(
            {"event": "right", "when": "left", "": "left", "kind": "left", "about": "left", "what": "left"},
            [
                [
                    event["id"],
                    format_time(event["created_at"]),
                    Text(event["severity"], style=_STYLES.get(event["severity"], "")),
                    event["kind"],
                    event["subject"],
                    event["message"],
                ]
                for event in events
            ],
            empty="There are no such events." if kind else "Nothing has happened yet.",
            column_width=_MESSAGE_WIDTH,
        )
