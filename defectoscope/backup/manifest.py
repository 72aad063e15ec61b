"""What a backup says of itself. Whoever reads one looks at nothing before this has been read and believed."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from defectoscope.errors.backup import BackupInvalid

FORMAT = 1
_NAME = "manifest.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class TableFile:
    """One table.

    Attributes:
        columns: in the order of the file.
        rows: how many there are.
        sha256: of the file.
    """

    columns: tuple[str, ...]
    rows: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """A whole backup.

    Attributes:
        created_at: the moment of its snapshot, ISO 8601.
        revision: of the schema.
        bucket: that addresses in the rows name.
        tables: by name.
        objects: how many there are.
        objects_bytes: their size together.
        objects_sha256: of the list of their keys.
        gone: keys that rows promise and that were not stored, such as an address that a caller made up.
    """

    created_at: str
    revision: str
    bucket: str
    tables: dict[str, TableFile]
    objects: int
    objects_bytes: int
    objects_sha256: str
    gone: tuple[str, ...]


def table_path(directory: Path, name: str) -> Path:
    """Return where the rows of a table are."""
    return directory / "tables" / f"{name}.copy"


def keys_path(directory: Path) -> Path:
    """Return where the keys of the objects are, one a line."""
    return directory / "objects.txt"


def object_path(directory: Path, key: str) -> Path:
    """Return where an object is. Keys of ours are made of letters, digits and dots."""
    return directory / "objects" / key


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Write it in one step, as the last file of a backup."""
    partial = directory / f"{_NAME}.partial"
    partial.write_text(json.dumps({"format": FORMAT, **asdict(manifest)}, indent=1) + "\n")
    partial.replace(directory / _NAME)


def read_manifest(directory: Path) -> Manifest:
    """Return what a backup says of itself.

    Raises:
        BackupInvalid: there is no whole backup, or one of another format.
    """
    try:
        said = json.loads((directory / _NAME).read_text())
        if said.pop("format") != FORMAT:
            raise BackupInvalid(f"The backup in {directory} is of another format than {FORMAT}.")
        tables = {
            name: TableFile(columns=tuple(table["columns"]), rows=table["rows"], sha256=table["sha256"])
            for name, table in said.pop("tables").items()
        }
        return Manifest(tables=tables, gone=tuple(said.pop("gone")), **said)
    except FileNotFoundError as exc:
        raise BackupInvalid(f"There is no whole backup in {directory}: it has no {_NAME}.") from exc
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise BackupInvalid(f"The {_NAME} in {directory} cannot be read.") from exc
