"""`defectoscope holds`: what is kept whatever the rules of retention say. It speaks to the database itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from defectoscope.cli.model_ledger import account
from defectoscope.cli.moments import format_time
from defectoscope.cli.operating import opened_database
from defectoscope.cli.output import answer, print_json, print_table
from defectoscope.cli.session import JsonOption

if TYPE_CHECKING:
    from defectoscope.database import Hold

app = typer.Typer(no_args_is_help=True, help="Keep jobs and images whatever the rules of retention say.")

_REASON_WIDTH = 60


@app.command()
def add(
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why, for whoever wants to remove it.")],
    job: Annotated[int | None, typer.Option(metavar="ID", help="Nothing of this job is deleted.")] = None,
    image: Annotated[int | None, typer.Option(metavar="ID", help="Nothing of this image is deleted.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Put a hold on a job or on an image. What was deleted before does not come back."""
    from defectoscope.objects.retention import add_hold

    with opened_database() as database, database.transaction() as session:
        hold = _describe(add_hold(session, reason=reason, actor=account(), job_id=job, image_id=image))
    answer(hold, f"Hold {hold['id']} is on {_subject(hold)}.", as_json=as_json)


@app.command("list")
def list_holds(as_json: JsonOption = False) -> None:
    """List the holds."""
    from defectoscope.objects.retention import list_holds as read

    with opened_database() as database, database.transaction() as session:
        holds = [_describe(hold) for hold in read(session)]
    if as_json:
        print_json({"items": holds})
        return
    print_table(
        {"hold": "right", "on": "left", "why": "left", "by": "left", "since": "left"},
        [
            [hold["id"], _subject(hold), hold["reason"], hold["actor"], format_time(hold["created_at"])]
            for hold in holds
        ],
        empty="There are no holds.",
        column_width=_REASON_WIDTH,
    )


@app.command()
def remove(
    hold: Annotated[int, typer.Argument(metavar="ID", help="Number of the hold.")], as_json: JsonOption = False
) -> None:
    """Remove a hold; the rules hold again."""
    from defectoscope.objects.retention import remove_hold

    with opened_database() as database, database.transaction() as session:
        remove_hold(session, hold, actor=account())
    answer({"removed": hold}, f"Removed hold {hold}.", as_json=as_json)


def _describe(hold: Hold) -> dict[str, Any]:
    return {
        "id": hold.id,
        "job_id": hold.job_id,
        "image_id": hold.image_id,
        "reason": hold.reason,
        "actor": hold.actor,
        "created_at": hold.created_at.isoformat(),
    }


def _subject(hold: dict[str, Any]) -> str:
    return f"job {hold['job_id']}" if hold["job_id"] is not None else f"image {hold['image_id']}"
