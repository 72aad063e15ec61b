"""`defectoscope models promote|rollback|retire|history`: which version is in service, since when, and who said so."""

from __future__ import annotations

import getpass
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from defectoscope.cli.moments import format_time, read_moment
from defectoscope.cli.output import Cell, answer, note, print_json, print_table, say
from defectoscope.cli.session import JsonOption, LimitOption, open_client
from defectoscope.errors.api import InvalidRequest

if TYPE_CHECKING:
    from defectoscope.client import Client

Number = Annotated[int, typer.Argument(metavar="N", min=1, help="Number of the model version.")]
Reason = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why, for whoever reads the ledger in a year.")]

_REASON_WIDTH = 60
_ACTION_STYLES = {"promoted": "green", "rolled_back": "yellow", "refused": "dim"}


def promote(number: Number, reason: Reason, as_json: JsonOption = False) -> None:
    """Put a model version into service, whatever the gate says.

    Jobs submitted from now on use it; those that run finish on theirs. What the gate says of it is written into the
    ledger with your name and the reason. If another version comes into service at the same moment, nothing is changed.
    """
    with open_client() as client:
        champion = _champion(client)
        model = client.models.promote(number, actor=account(), reason=reason, expected_champion=champion)
    if as_json:
        print_json(model)
        return
    instead = "" if champion is None else f" in place of model {champion}"
    say(f"Model {number} is in service{instead}.")


def rollback(
    reason: Reason,
    to: Annotated[
        int | None, typer.Option("--to", metavar="N", min=1, help="Version to go back to; by default the one before.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Take the model version in service out again and put the one before it back.

    Rolling back again goes further back, never forward to what was taken out; to go forward, promote. Versions that
    were retired since are passed over. Of two people who roll back at the same moment, the second is told so and
    changes nothing.
    """
    with open_client() as client:
        champion = _champion(client)
        model = client.models.roll_back(actor=account(), reason=reason, to=to, expected_champion=champion)
    if as_json:
        print_json(model)
        return
    say(f"Model {model['number']} is back in service in place of model {champion}.")
    skipped = model["ledger"][-1]["figures"].get("skipped")
    if skipped:
        note(f"Passed over, for they cannot serve any more: {', '.join(map(str, skipped))}.")
    note(
        f"Model {champion} may still be the one that challengers are measured by; if its scores are not to be trusted, "
        f"`defectoscope models retire {champion}`."
    )


def retire(
    number: Number,
    reason: Reason,
    drop_weights: Annotated[
        bool, typer.Option("--drop-weights", metavar="", help="Delete its files too. This cannot be undone.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Retire a model version: it is never put into service again, and its record stays for ever.

    With its files, jobs may still name it. They are deleted only when no unfinished job needs them; running the command
    again with --drop-weights deletes what is left.
    """
    with open_client() as client:
        model = client.models.retire(number, actor=account(), reason=reason, drop_weights=drop_weights)
    dropped = " and its files are deleted" if drop_weights else ""
    answer(model, f"Model {number} is retired{dropped}.", as_json=as_json)


def history(
    as_of: Annotated[
        str | None,
        typer.Option(
            "--as-of",
            metavar="TIME",
            help="Such as 2026-11-23T02:00, in this machine's time zone unless one is given; by default now.",
        ),
    ] = None,
    limit: LimitOption = 50,
    as_json: JsonOption = False,
) -> None:
    """Show which model version was in service at a moment, and every decision until then, newest first."""
    moment = None if as_of is None else read_moment(as_of)
    with open_client() as client:
        found = client.models.history(as_of=moment, limit=limit or None)
    if as_json:
        print_json(found)
        return
    when = "now" if moment is None else f"at {format_time(moment.isoformat())}"
    line = found["in_service"]
    if line is None:
        say(f"No model is in service {when}." if moment is None else f"No model was in service {when}.")
    else:
        verb = "is" if moment is None else "was"
        since = format_time(line["created_at"])
        say(f"Model {line['model_version']} {verb} in service {when}, since {since}, by {line['actor']}.")
    say()
    print_table(
        {"when": "left", "what": "left", "model": "right", "by": "left", "why": "left"},
        [
            [
                format_time(entry["created_at"]),
                describe_action(entry),
                entry["model_version"],
                entry["actor"],
                entry["reason"],
            ]
            for entry in found["items"]
        ],
        empty="Nothing had been decided." if moment is not None else "Nothing has been decided.",
        column_width=_REASON_WIDTH,
    )


def describe_action(line: dict[str, Any]) -> Cell:
    """Return what a line of the ledger says was done, in a few words."""
    action = line["action"]
    words = action.replace("_", " ")
    previous = line["previous_version"]
    if previous is not None and action in {"promoted", "rolled_back"}:
        words = f"{words}, was {previous}"
    elif previous is not None and action == "refused":
        words = f"{words} against {previous}"
    return Text(words, style=_ACTION_STYLES.get(action, ""))


def account() -> str:
    """Return the name of the account that runs this command: the actor of its decisions.

    Raises:
        InvalidRequest: the system knows none.
    """
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError) as exc:
        raise InvalidRequest(
            "This system knows no name for your account, and a decision needs one; set the variable LOGNAME."
        ) from exc


def _champion(client: Client) -> int | None:
    """Return the version in service as the person who decides sees it now."""
    line = client.models.history(limit=1)["in_service"]
    return None if line is None else int(line["model_version"])
