"""`defectoscope holds`: what is kept whatever the rules of retention say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from defectoscope.cli.model_ledger import account
from defectoscope.cli.moments import format_time
from defectoscope.cli.output import answer, print_json_items, print_table
from defectoscope.cli.session import DatabaseOption, JsonOption, LimitOption, open_client

if TYPE_CHECKING:
    from defectoscope.client.wire import Hold

app = typer.Typer(no_args_is_help=True, help="Keep jobs and images whatever the rules of retention say.")

_REASON_WIDTH = 60


@app.command()
def add(
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why, for whoever wants to remove it.")],
    job: Annotated[int | None, typer.Option(metavar="ID", help="Nothing of this job is deleted.")] = None,
    image: Annotated[int | None, typer.Option(metavar="ID", help="Nothing of this image is deleted.")] = None,
    database: DatabaseOption = False,
    as_json: JsonOption = False,
) -> None:
    """Put a hold on a job or on an image. What was deleted before does not come back."""
    if database:
        from defectoscope.cli.keeping import hold_in_database

        hold = hold_in_database(reason=reason, job_id=job, image_id=image)
    else:
        with open_client() as client:
            hold = client.holds.add(reason=reason, job_id=job, image_id=image, actor=account())
    answer(hold, f"Hold {hold['id']} is on {_subject(hold)}.", as_json=as_json)


@app.command("list")
def list_holds(limit: LimitOption = 50, as_json: JsonOption = False) -> None:
    """List holds, newest first."""
    with open_client() as client:
        holds = client.holds.list(limit=limit or None)
        if as_json:
            print_json_items(holds)
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
    hold_id: Annotated[int, typer.Argument(metavar="HOLD", help="Its number, as in `holds list`.")],
    as_json: JsonOption = False,
) -> None:
    """Remove a hold; the rules hold again for what it spared."""
    with open_client() as client:
        hold = client.holds.remove(hold_id)
    answer(hold, f"Removed hold {hold['id']} on {_subject(hold)}.", as_json=as_json)


def _subject(hold: Hold) -> str:
    return f"job {hold['job_id']}" if hold["job_id"] is not None else f"image {hold['image_id']}"
