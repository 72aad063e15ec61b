"""`defectoscope storage`: looks after the bucket. It speaks to the servers of the settings itself, not to the API."""

from __future__ import annotations

import os
import socket
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from defectoscope.cli.operating import log_to_standard_error
from defectoscope.cli.output import print_facts, print_json, progress, say
from defectoscope.cli.session import JsonOption

if TYPE_CHECKING:
    from defectoscope.objects import Collection

app = typer.Typer(no_args_is_help=True, help="Look after the bucket: delete what nothing refers to.")


@app.callback()
def _noun() -> None:
    """Look after the bucket: delete what nothing refers to."""


@app.command()
def collect(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Count what would be deleted, and delete nothing.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Delete stored objects that nothing refers to and that are older than the time of grace.

    Before that, what the rules of `defectoscope retention` say is given up. Workers do the same once a day. It needs
    the servers' addresses and keys, as `defectoscope up` writes them for its own machine.
    """
    from defectoscope import connect
    from defectoscope.objects import apply_rules, collect, survey
    from defectoscope.settings import load_settings
    from defectoscope.storage import Buckets, open_s3

    log_to_standard_error()
    settings = load_settings()
    config = connect.s3_config(settings)
    database = connect.open_database(settings)
    storage = open_s3(config)
    grace = timedelta(days=settings.storage.grace_days)
    with progress("Looking", None):
        if dry_run:
            found = survey(database=database, storage=storage, bucket=config.bucket, grace=grace)
        else:
            owner = f"{socket.gethostname()}:{os.getpid()}"
            done = collect(
                database=database,
                storage=storage,
                bucket=config.bucket,
                grace=grace,
                owner=owner,
                uploads=Buckets(config),
                prepare=lambda: apply_rules(database),
            )
            # With no time between walks one is always due.
            assert done is not None  # noqa: S101
            found = done
    database.close()
    if as_json:
        print_json(
            {
                "dry_run": dry_run,
                "grace_days": settings.storage.grace_days,
                "examined_objects": found.examined_objects,
                "examined_bytes": found.examined_bytes,
                "unreferenced": dict(found.unreferenced),
                "deleted_objects": found.deleted_objects,
                "deleted_bytes": found.deleted_bytes,
            }
        )
        return
    _print(found, dry_run=dry_run, grace_days=settings.storage.grace_days)


def _print(found: Collection, *, dry_run: bool, grace_days: int) -> None:
    count = found.unreferenced.total()
    what = "object" if count == 1 else "objects"
    verb = "Would delete" if dry_run else "Deleted"
    say(
        f"Looked at {found.examined_objects} objects. {verb} {count} {what} that nothing refers to and that "
        f"{'is' if count == 1 else 'are'} older than {grace_days} days."
    )
    if found.unreferenced:
        print_facts({name: str(number) for name, number in sorted(found.unreferenced.items())}, indent=2)
