"""`defectoscope retention`: what is deleted when it is old. It speaks to the database itself, not to the API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from defectoscope.cli.model_ledger import account
from defectoscope.cli.moments import format_time
from defectoscope.cli.operating import opened_database
from defectoscope.cli.output import answer, print_json, print_table
from defectoscope.cli.session import JsonOption

if TYPE_CHECKING:
    from defectoscope.database import RetentionRule

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
    from defectoscope.database import RetainedWhat
    from defectoscope.objects.retention import add_rule

    with opened_database() as database, database.transaction() as session:
        rule = add_rule(
            session,
            what=RetainedWhat(what),
            older_than_days=days,
            keep_defective=not all_verdicts,
            job_id=job,
            actor=account(),
        )
        said = _describe(rule)
    answer(said, f"Rule {said['id']}: {_sentence(said)}", as_json=as_json)


@app.command("list")
def list_rules(as_json: JsonOption = False) -> None:
    """List the rules."""
    from defectoscope.objects.retention import list_rules as read

    with opened_database() as database, database.transaction() as session:
        rules = [_describe(rule) for rule in read(session)]
    if as_json:
        print_json({"items": rules})
        return
    print_table(
        {"rule": "right", "what is deleted": "left", "by": "left", "since": "left"},
        [[rule["id"], _sentence(rule), rule["actor"], format_time(rule["created_at"])] for rule in rules],
        empty="There are no rules: nothing is deleted for its age.",
    )


@app.command()
def remove(
    rule: Annotated[int, typer.Argument(metavar="ID", help="Number of the rule.")], as_json: JsonOption = False
) -> None:
    """Take a rule back. What was deleted under it is gone."""
    from defectoscope.objects.retention import remove_rule

    with opened_database() as database, database.transaction() as session:
        remove_rule(session, rule, actor=account())
    answer({"removed": rule}, f"Removed rule {rule}.", as_json=as_json)


@app.command()
def apply(
    dry_run: Annotated[bool, typer.Option("--dry-run", metavar="", help="Count, and delete nothing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Follow the rules now. The objects themselves go with the next `defectoscope storage collect`, or tonight."""
    from defectoscope.objects import apply_rules, count_given_up

    with opened_database() as database:
        counts = count_given_up(database) if dry_run else apply_rules(database)
    total = sum(counts.values())
    verb = "would be given up" if dry_run else "were given up"
    answer(
        {"dry_run": dry_run, "rows": {str(rule): count for rule, count in counts.items()}},
        f"{total} results and images {verb} under {len(counts)} rules.",
        as_json=as_json,
    )


def _describe(rule: RetentionRule) -> dict[str, Any]:
    return {
        "id": rule.id,
        "what": rule.what.value,
        "older_than_days": rule.older_than_days,
        "keep_defective": rule.keep_defective,
        "job_id": rule.job_id,
        "actor": rule.actor,
        "created_at": rule.created_at.isoformat(),
    }


def _sentence(rule: dict[str, Any]) -> str:
    things = {"masks": "masks and overlays", "originals": "originals"}[rule["what"]]
    whose = "" if rule["job_id"] is None else f" of job {rule['job_id']}"
    which = "of clean images" if rule["keep_defective"] else "of all images"
    return f"{things} {which}{whose} after {rule['older_than_days']} days"
