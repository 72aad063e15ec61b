"""`defectoscope retention`: rules of what is deleted when it is old."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from defectoscope.cli.model_ledger import account
from defectoscope.cli.moments import format_time
from defectoscope.cli.output import answer, print_json_items, print_table, progress
from defectoscope.cli.session import DatabaseOption, JsonOption, LimitOption, open_client

if TYPE_CHECKING:
    from defectoscope.client.wire import RetentionRule

_ABOUT = "Have masks, overlays and originals deleted when they are old; verdicts and defects stay."

app = typer.Typer(no_args_is_help=True, help=_ABOUT)


@app.command()
def add(
    what: Annotated[
        Literal["masks", "originals"],
        typer.Option(help="masks: masks and overlays of results; originals: the images' own bytes."),
    ],
    days: Annotated[int, typer.Option(min=1, metavar="N", help="Since it was made, and since the last job used it.")],
    all_verdicts: Annotated[
        bool,
        typer.Option("--all", metavar="", help="Those with defects too; by default only what is clean is deleted."),
    ] = False,
    job: Annotated[int | None, typer.Option(metavar="ID", help="Only what this job used and no other.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Add a rule. It is followed once a day, from now on.

    What a hold, a label or a dataset refers to is never deleted, nor what a job uses that has not ended.
    """
    with open_client() as client:
        rule = client.retention.add(
            what=what, older_than_days=days, keep_defective=not all_verdicts, job_id=job, actor=account()
        )
    answer(rule, f"Rule {rule['id']}: {_sentence(rule)}", as_json=as_json)


@app.command("list")
def list_rules(limit: LimitOption = 50, as_json: JsonOption = False) -> None:
    """List rules, newest first."""
    with open_client() as client:
        rules = client.retention.list(limit=limit or None)
        if as_json:
            print_json_items(rules)
            return
        print_table(
            {"rule": "right", "what is deleted": "left", "by": "left", "since": "left"},
            [[rule["id"], _sentence(rule), rule["actor"], format_time(rule["created_at"])] for rule in rules],
            empty="There are no rules: nothing is deleted for its age.",
        )


@app.command()
def remove(
    rule_id: Annotated[int, typer.Argument(metavar="RULE", help="Its number, as in `retention list`.")],
    database: DatabaseOption = False,
    as_json: JsonOption = False,
) -> None:
    """Take a rule back. What was deleted under it is gone."""
    if database:
        from defectoscope.cli.keeping import remove_rule_in_database

        rule = remove_rule_in_database(rule_id)
    else:
        with open_client() as client:
            rule = client.retention.remove(rule_id)
    answer(rule, f"Removed rule {rule['id']}: {_sentence(rule)}", as_json=as_json)


@app.command()
def apply(
    dry_run: Annotated[bool, typer.Option("--dry-run", metavar="", help="Count, and delete nothing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Follow the rules now. The objects themselves go with the next `defectoscope storage collect`, or tonight."""
    with open_client() as client, progress("Looking", None):
        counts = client.retention.due() if dry_run else client.retention.apply()
    total = sum(counts.values())
    verb = "would be given up" if dry_run else "were given up"
    answer(
        {"dry_run": dry_run, "rows": {str(rule): count for rule, count in counts.items()}},
        f"{total} results and images {verb} under {len(counts)} rule{'' if len(counts) == 1 else 's'}.",
        as_json=as_json,
    )


def _sentence(rule: RetentionRule) -> str:
    things = {"masks": "masks and overlays", "originals": "originals"}[rule["what"]]
    whose = "" if rule["job_id"] is None else f" of job {rule['job_id']}"
    which = "of clean images" if rule["keep_defective"] else "of all images"
    return f"{things} {which}{whose} after {rule['older_than_days']} days"
