"""`defectoscope backup`: the whole system into a directory and back. It speaks to the servers, not to the API."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from defectoscope.cli.operating import log_to_standard_error
from defectoscope.cli.output import answer, progress
from defectoscope.cli.session import JsonOption
from defectoscope.errors.api import InvalidRequest

if TYPE_CHECKING:
    from defectoscope.storage import S3Config

app = typer.Typer(no_args_is_help=True, help="Write the whole system into a directory, and read it back.")

#: A large table takes longer than any statement of ours elsewhere.
_STATEMENT_TIMEOUT_S = 6 * 3600


@app.command()
def create(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A new directory.")],
    as_json: JsonOption = False,
) -> None:
    """Write every table as of this moment, and every object that their rows point at. Work may go on meanwhile."""
    from defectoscope import connect
    from defectoscope.backup import create_backup
    from defectoscope.database import Database
    from defectoscope.settings import load_settings, required
    from defectoscope.storage import open_s3

    log_to_standard_error()
    settings = load_settings()
    config = connect.s3_config(settings)
    url = required(settings.database.url, "database.url").get_secret_value()
    database = Database(url, pool_size=2, statement_timeout_s=_STATEMENT_TIMEOUT_S)
    try:
        with progress("Copying objects", None) as bar:
            made = create_backup(
                database=database,
                storage=open_s3(config),
                bucket=config.bucket,
                directory=directory,
                on_progress=lambda done, total: bar.show(completed=done, total=total),
            )
    except OSError as exc:
        raise InvalidRequest(f"{directory} cannot be written: {exc.strerror}.") from exc
    finally:
        database.close()
    rows = sum(table.rows for table in made.tables.values())
    answer(
        {**asdict(made), "rows": rows, "directory": str(directory)},
        f"Wrote {rows} rows of {len(made.tables)} tables and {made.objects} objects ({made.objects_bytes} bytes) to "
        f"{directory}.",
        as_json=as_json,
    )


@app.command()
def restore(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Of a backup.")],
    data_dir: Annotated[
        Path | None,
        typer.Option(
            help="Start the embedded servers of this data directory and fill them.",
            show_default="the servers of the settings",
        ),
    ] = None,
    objects_only: Annotated[
        bool, typer.Option("--objects-only", metavar="", help="Put back missing objects; leave the database alone.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Put back the objects that the bucket lacks, and fill an empty database. Stop the system's processes before."""
    from defectoscope.backup import read_manifest, restore_database, restore_objects
    from defectoscope.storage import Buckets, open_s3

    log_to_standard_error()
    manifest = read_manifest(directory)
    with _servers(data_dir) as (database_url, config):
        Buckets(config).ensure(config.bucket)
        with progress("Putting objects back", manifest.objects) as bar:
            put_back = restore_objects(
                storage=open_s3(config),
                bucket=config.bucket,
                directory=directory,
                on_progress=lambda done, total: bar.show(completed=done, total=total),
            )
        rows = 0
        if not objects_only:
            with progress("Filling the database", None):
                restore_database(
                    database_url=database_url, directory=directory, statement_timeout_s=_STATEMENT_TIMEOUT_S
                )
            rows = sum(table.rows for table in manifest.tables.values())
    answer(
        {"created_at": manifest.created_at, "rows": rows, "objects": manifest.objects, "put_back": put_back},
        f"Restored {rows} rows and {put_back} of {manifest.objects} objects, as of {manifest.created_at}; the other "
        "objects were there.",
        as_json=as_json,
    )


@contextmanager
def _servers(data_dir: Path | None) -> Iterator[tuple[str, S3Config]]:
    """Give the address of the database and the storage: those of the settings, or embedded ones for a while."""
    from defectoscope import connect
    from defectoscope.settings import load_settings, required

    if data_dir is None:
        settings = load_settings()
        yield required(settings.database.url, "database.url").get_secret_value(), connect.s3_config(settings)
        return
    from defectoscope.embedded.stack import EmbeddedStack
    from defectoscope.storage import S3Config

    with EmbeddedStack(data_dir) as servers:
        yield (
            servers.database_url,
            S3Config(
                endpoint_url=servers.s3_endpoint_url,
                region=servers.s3_region,
                access_key=servers.s3_access_key,
                secret_key=servers.s3_secret_key,
                bucket=servers.bucket,
            ),
        )
