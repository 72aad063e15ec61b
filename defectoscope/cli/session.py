"""Opens the API for a command, and the options that many commands share. Imports the client only when it is used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from defectoscope.client import Client

JsonOption = Annotated[
    bool, typer.Option("--json", metavar="", help="Print JSON on standard output, and nothing else there.")
]
DatabaseOption = Annotated[
    bool,
    typer.Option(
        "--database",
        metavar="",
        help="Write straight into the database of DEFECTOSCOPE_DATABASE__URL: while the API is down.",
    ),
]
LimitOption = Annotated[int, typer.Option("--limit", min=0, metavar="N", help="At most N; 0 for all.")]


def open_client() -> Client:
    """Return a client of the API that the settings name, with the token that they hold."""
    # Here and not above: `--help` must not wait for httpx and pydantic.
    from defectoscope.client import Client

    return Client.from_settings()
