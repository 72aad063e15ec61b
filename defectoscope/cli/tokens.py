"""`defectoscope tokens`: who may call the API. The text of a token is printed once, when it is made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.text import Text

from defectoscope.cli.moments import format_time
from defectoscope.cli.output import answer, note, print_json, print_json_items, print_table, say
from defectoscope.cli.session import JsonOption, LimitOption, open_client

if TYPE_CHECKING:
    from defectoscope.client.wire import ApiToken

app = typer.Typer(no_args_is_help=True, help="Make, list and revoke the tokens that let people and programs in.")

_NAME_WIDTH = 40


@app.command()
def create(
    name: Annotated[str, typer.Option(metavar="NAME", help="Of the person or the program that will hold it.")],
    scope: Annotated[
        Literal["viewer", "operator", "trainer", "admin"],
        typer.Option(help="What it allows; each includes those before it."),
    ] = "viewer",
    days: Annotated[
        int | None, typer.Option(min=1, max=3650, metavar="N", help="Valid for N days.", show_default="until revoked")
    ] = None,
    database: Annotated[
        bool,
        typer.Option(
            "--database",
            metavar="",
            help="Write it straight into the database of DEFECTOSCOPE_DATABASE__URL: for the first token.",
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Make a token and print it. It is shown this once: nobody can ask for it again."""
    if database:
        from defectoscope.cli.first_token import create_in_database

        token = create_in_database(name=name, scope=scope, days=days)
    else:
        with open_client() as client:
            token = client.tokens.create(name=name, scope=scope, expires_in_days=days)
    if as_json:
        print_json(token)
        return
    until = f"until {format_time(token['expires_at'])}" if token["expires_at"] else "until it is revoked"
    note(f"Token {token['id']} of {token['name']} ({token['scope']}) is valid {until}. It is shown this once:")
    say(token["token"])


@app.command("list")
def list_tokens(limit: LimitOption = 50, as_json: JsonOption = False) -> None:
    """List tokens, newest first, without their texts."""
    with open_client() as client:
        tokens = client.tokens.list(limit=limit or None)
        if as_json:
            print_json_items(tokens)
            return
        print_table(
            {
                "token": "right",
                "name": "left",
                "scope": "left",
                "state": "left",
                "made by": "left",
                "last used": "left",
            },
            [
                [
                    token["id"],
                    token["name"],
                    token["scope"],
                    _state_of(token),
                    token["created_by"],
                    format_time(token["last_used_at"]) if token["last_used_at"] else "never",
                ]
                for token in tokens
            ],
            empty="There is no token.",
            column_width=_NAME_WIDTH,
        )


@app.command()
def revoke(
    token_id: Annotated[int, typer.Argument(metavar="TOKEN", help="Its number, as in `tokens list`.")],
    as_json: JsonOption = False,
) -> None:
    """End a token at once and for good."""
    with open_client() as client:
        token = client.tokens.revoke(token_id)
    answer(token, f"Token {token['id']} of {token['name']} is revoked.", as_json=as_json)


def _state_of(token: ApiToken) -> Text | str:
    if token["revoked_at"]:
        return Text(f"revoked {format_time(token['revoked_at'])}", style="dim")
    return f"until {format_time(token['expires_at'])}" if token["expires_at"] else "valid"
